"""`python -m benchmarks.label_errors`: are the labels that an audit lists wrong, and as many as it says?

Labels of photos7, imagenette_mini and 2,000 images of CIFAR-10 at 96 px (200 of each class) are changed, 5 % of them:
to another class at random, or to the one that a classifier confuses the class with most. `audit` judges them on
features of a real Lite0. k is the number of changed labels. The figure is the share of changed labels among the k
surest of imagenette_mini, at random, the mean over seeds. Other goals: on it, 80 % of the changed ones have a
probability of at least one half; the share on photos7 is at least 0.70; and on each set the share that the audit states
for its k surest, of labels changed at random, is at most 0.15 from the true one, on average.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.cifar import unpack
from benchmarks.harness import finish, options, shared
from effnet.data.datasets import read_dataset
from effnet.data.inspection.inspect import inspect_and_join
from effnet.jobs.audit.api import images_of
from effnet.measurement.label_noise import label_noise
from effnet.training.transfer.out_of_fold import folds_of, out_of_fold

GOAL, LEAST_RECALL, LEAST_PHOTOS, MOST_OFF, RATE = 0.85, 0.8, 0.7, 0.15, 0.05
A_CLASS, SIDE = 200, 96
KINDS = ("random", "confused")


def main() -> None:
    """Change labels of each set with each seed, and judge them."""
    args = options(__doc__ or "", n=5)
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, side in _sets(Path(scratch)):
            dataset, _ = inspect_and_join(read_dataset(path, seed=0), seed=0)
            weights = str(shared("weights", "tf_efficientnet_lite0_headless.safetensors"))
            images = images_of(dataset, weights, None, side=side, progress=None)
            for kind in KINDS:
                for seed in range(args.n):
                    row = _judged(images, len(dataset.class_names), kind, seed)
                    for key, value in row.items():
                        samples.setdefault(f"{name}_{kind}_{key}", []).append(value)
                    print(name, kind, seed, {key: round(value, 3) for key, value in row.items()}, flush=True)
    means = {key: float(np.mean(values)) for key, values in samples.items()}
    off = max(
        abs(means[key] - means[key.replace("stated", "precision")]) for key in means if key.endswith("random_stated")
    )
    recall, photos = means["imagenette_mini_random_recall"], means["photos7_random_precision"]
    goals = {
        f"{recall:.3f} of the changed labels have a probability of 0.5, of at least {LEAST_RECALL:g}": recall
        >= LEAST_RECALL,
        f"{photos:.3f} of those listed of photos7 are wrong, of at least {LEAST_PHOTOS:g}": photos >= LEAST_PHOTOS,
        f"what is stated is {off:.3f} off, of at most {MOST_OFF:g}": off <= MOST_OFF,
    }
    print("; ".join(goals))
    finish(
        "label_errors", args, figure=means["imagenette_mini_random_precision"], goal=GOAL,
        unit="of the listed labels wrong", better="higher", samples=samples,
        details={"rate": RATE, "off": off, "recall": recall},
        missed=[words for words, reached in goals.items() if not reached],
    )  # fmt: skip


def _sets(scratch: Path) -> list[tuple[str, str, int | None]]:
    """Return the name, the folder and the input side (None for that of the weights) of each set."""
    unpack(
        shared("data", "cifar10_12k.tar.gz"), scratch / "cifar",
        lambda part, number: part if part == "train" and number <= A_CLASS else "",
    )  # fmt: skip
    named = [(name, str(shared("data", name)), None) for name in ("photos7", "imagenette_mini")]
    return [*named, ("cifar", str(scratch / "cifar"), SIDE)]


def _judged(images, classes: int, kind: str, seed: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Return what an audit finds of changed labels, and what it states."""
    rng = np.random.default_rng(seed)
    changed = rng.permutation(len(images.labels))[: round(RATE * len(images.labels))]
    given = images.labels.copy()
    if kind == "random":
        given[changed] = (given[changed] + rng.integers(1, classes, len(changed))) % classes
    else:
        given[changed] = _confused(images, classes)[given[changed]]
    images = dataclasses.replace(images, labels=given)
    logits = out_of_fold(images.features, given, folds_of(given, images.groups, seed=seed), num_classes=classes)
    found = label_noise(logits, given)
    order, wrong = np.argsort(-found.probabilities), np.isin(np.arange(len(given)), changed)
    return {
        "precision": float(wrong[order[: len(changed)]].mean()),
        "stated": found.expected_precision(len(changed)),
        "recall": float((found.probabilities[changed] >= 0.5).mean()),
        "listed": float((found.probabilities >= 0.5).sum()),
        "rate": found.rate,
    }


def _confused(images, classes: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return the class [classes] that images of each class look most like, on average."""
    fold = folds_of(images.labels, images.groups)
    logits = out_of_fold(images.features, images.labels, fold, num_classes=classes)
    logits[np.arange(len(logits)), images.labels] = -np.inf
    first = logits.argmax(1)
    return np.array(
        [np.bincount(first[images.labels == number], minlength=classes).argmax() for number in range(classes)]
    )


if __name__ == "__main__":
    main()
