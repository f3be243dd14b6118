"""`python -m benchmarks.detect_nuclei --cache DIR`: hundreds of small objects in an image, beside torchvision.

Cell nuclei, 65 microscope images of up to 329 objects, a part held out for test by each seed: `effnet fit` from a real
Lite0 backbone, and torchvision's SSDlite and FCOS on the same backbone for twice the minutes. The figure is effnet's
mean AP on the test images above that of the best rival, in points.
"""

from benchmarks.detect_fits import options, rows_of, summary
from benchmarks.harness import finish

GOAL = 0.0


def main() -> None:
    """Run what is missing, and compare."""
    args = options(__doc__ or "", name="detect_nuclei", minutes=10.0, latency_ms=60.0)
    rows = rows_of("nuclei", args)
    if rows is None:
        return
    samples, gain = summary(rows)
    finish(
        "detect_nuclei", args, figure=gain, goal=GOAL, unit="points of AP", better="higher", samples=samples,
        details={"minutes": args.minutes, "max_latency_ms": args.max_latency_ms, "rows": rows},
    )  # fmt: skip


if __name__ == "__main__":
    main()
