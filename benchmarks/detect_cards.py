"""`python -m benchmarks.detect_cards --cache DIR`: objects found on photographs after minutes of training.

Playing cards, 296 training and 67 test photographs of six classes: `effnet fit` from a real Lite0 backbone, and
torchvision's SSDlite and FCOS and effdet's EfficientDet-Lite0 on the same backbone for twice the minutes. The figure
is the AP50 of effnet's deployed file on the test split in percent, the mean over seeds; it is 0 if a rival has a higher
AP, or if a fit takes more than 3 GB of memory.
"""

from benchmarks.detect_fits import options, rows_of, summary
from benchmarks.harness import finish

GOAL, MOST_MB = 90.0, 3000.0


def main() -> None:
    """Run what is missing, and compare."""
    args = options(__doc__ or "", name="detect_cards", minutes=20.0, latency_ms=20.0)
    rows = rows_of("cards", args)
    if rows is None:
        return
    samples, gain = summary(rows)
    ap50, memory = samples["effnet_ap50"], max(samples["effnet_peak_memory_mb"])
    print(f"AP {gain:+.1f} points from the best rival's; {memory:.0f} MB at most")
    finish(
        "detect_cards", args, figure=0.0 if gain < 0 or memory > MOST_MB else sum(ap50) / len(ap50), goal=GOAL,
        unit="%", better="higher", samples=samples,
        details={"minutes": args.minutes, "max_latency_ms": args.max_latency_ms, "gain_ap": gain, "rows": rows},
    )  # fmt: skip


if __name__ == "__main__":
    main()
