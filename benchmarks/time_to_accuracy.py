"""`python -m benchmarks.time_to_accuracy`: B0 on CIFAR-10 from scratch, effnet against a plain timm script.

9,800 training and 2,000 test images of 32 pixels, whole processes from the folder to a scored model: `effnet train`
(export and measurements included) and benchmarks/timm_cifar.py, the same network in both. Each side's schedule runs to
its end. The figure is timm's time over effnet's; it counts as 0 if effnet's accuracy on the test images is lower.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.cifar import unpack
from benchmarks.harness import finish, options, shared
from benchmarks.transfer import run_child

GOAL = 3.0
MODEL, SIDE, TIMM_EPOCHS, EPOCHS = "timm/efficientnet_b0", 32, 10, 6
VALIDATION = 20  # images of each class that neither side trains on
# The recipe is for 100 epochs; a short run needs smaller batches, a shorter warm-up, and no regularisation.
SETTINGS = (
    "train.batch_size=64", "train.lr_batch=64", "train.ema_decay=0.98", "schedule.warmup_epochs=0.6", "model.dropout=0",
    "model.drop_path=0", "augment.view=crop", "augment.min_area=0.7", "loss.label_smoothing=0",
)  # fmt: skip


def main() -> None:
    """Train with both sides in turn and compare."""
    args = options(__doc__ or "", n=1)
    samples: dict[str, list[float]] = {f"{s}_{key}": [] for s in ("effnet", "timm") for key in ("accuracy", "seconds")}
    with tempfile.TemporaryDirectory() as scratch:
        data = unpack(shared("data", "cifar10_12k.tar.gz"), Path(scratch) / "cifar10", place)
        for _ in range(args.n):
            for side, run in (("effnet", run_effnet), ("timm", run_timm)):
                for key, value in run(data, scratch).items():
                    samples[f"{side}_{key}"].append(value)
                print(side, {key: samples[f"{side}_{key}"][-1] for key in ("accuracy", "seconds")}, flush=True)
    ratio = statistics.median(samples["timm_seconds"]) / statistics.median(samples["effnet_seconds"])
    as_good = min(samples["effnet_accuracy"]) >= max(samples["timm_accuracy"])
    finish(
        "time_to_accuracy", args, figure=ratio if as_good else 0.0, goal=GOAL, unit="times faster", better="higher",
        samples=samples, details={"epochs": EPOCHS, "timm_epochs": TIMM_EPOCHS, "settings": list(SETTINGS)},
    )  # fmt: skip


def run_effnet(data: Path, scratch: str) -> dict[str, float]:
    """Train with `effnet train` and return seconds and accuracy, scored on the exported file."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out = Path(folder) / "bundle"
        words = ["train", data, "--model", MODEL, "--resolution", SIDE, "--recipe", "cifar10", "--out", out]
        words += ["--epochs", EPOCHS, *(word for setting in SETTINGS for word in ("--set", setting))]
        seconds, _ = run_child([sys.executable, "-m", "effnet", *map(str, words)], cache=scratch)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "accuracy": report["test_accuracy"]}


def run_timm(data: Path, scratch: str) -> dict[str, float]:
    """Run the plain script and return seconds and accuracy."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        log = Path(folder) / "log"
        words = ["-m", "benchmarks.timm_cifar", data, TIMM_EPOCHS, Path(folder) / "model.pth"]
        seconds, _ = run_child([sys.executable, *map(str, words)], cache=scratch, log=log)
        found = json.loads(log.read_text(encoding="utf-8").strip().splitlines()[-1])
    return {"seconds": seconds, "accuracy": found["accuracy"]}


def place(part: str, number: int) -> str:
    """Return the split of an image: the first training images of each class are for validation."""
    return "val" if part == "train" and number <= VALIDATION else part


if __name__ == "__main__":
    main()
