"""`python -m benchmarks.finetune`: gain of fine-tuning over a linear probe on images unlike those of the pretraining.

100 training and 50 test images of each CIFAR-10 class, 32 pixels wide, from a real Lite0 backbone at 96 pixels: the
figure is the gain in test accuracy, in percentage points, of `effnet fit --set fit.strategy=finetune` (6 epochs) over
`--set fit.strategy=head`, averaged over seeds.
"""

import statistics
import tempfile
from pathlib import Path

import effnet
from benchmarks.cifar import unpack
from benchmarks.harness import finish, options, shared

GOAL = 5.0
TRAIN, TEST, EPOCHS, MAX_MACS = 100, 50, 6, 80e6


def main() -> None:
    """Fit with both strategies, in turn, and compare."""
    args = options(__doc__ or "", n=2)
    weights = shared("weights", "tf_efficientnet_lite0_headless.safetensors")
    samples: dict[str, list[float]] = {
        f"{s}_{key}": [] for s in ("head", "finetune") for key in ("accuracy", "seconds")
    }
    with tempfile.TemporaryDirectory() as scratch:
        data = unpack(shared("data", "cifar10_12k.tar.gz"), Path(scratch) / "cifar10", place)
        for seed in range(args.n):
            for strategy, epochs in (("head", None), ("finetune", EPOCHS)):
                out = Path(scratch) / f"{strategy}-{seed}"
                report = effnet.fit(
                    data, weights=weights, strategy=strategy, epochs=epochs, max_macs=MAX_MACS, seed=seed, out=out
                ).report
                samples[f"{strategy}_accuracy"].append(100 * report.test.accuracy)
                samples[f"{strategy}_seconds"].append(report.seconds)
                print(seed, strategy, report.network.name, f"{report.test.accuracy:.2%}", flush=True)
    gain = statistics.mean(samples["finetune_accuracy"]) - statistics.mean(samples["head_accuracy"])
    finish(
        "finetune", args, figure=gain, goal=GOAL, unit="pp", better="higher", samples=samples,
        details={"train_images_a_class": TRAIN, "test_images_a_class": TEST, "epochs": EPOCHS},
    )  # fmt: skip


def place(part: str, number: int) -> str:
    """Return the split of an image: the first ones of each class, and no others."""
    return part if number <= (TRAIN if part == "train" else TEST) else ""


if __name__ == "__main__":
    main()
