"""`python -m benchmarks.suggest`: is a classifier better if `suggest` says which images to label?

A pool of 4,000 training images of CIFAR-10, as many of each class, and a real Lite0. The first 100 labels go to the
images that `suggest` names (typical ones), or to images drawn at random; then a linear classifier on the features is
tested on 2,000 other images. Again with 300 labels that were drawn before, and 100 more (those that a classifier is
unsure of, or random ones). The figure is the gain in accuracy of the first 100, in points, the mean over seeds.
"""

import tempfile
from pathlib import Path

import numpy as np

import effnet
from benchmarks.cifar import unpack
from benchmarks.harness import finish, options, shared
from effnet.data.datasets import Split
from effnet.data.sources.folder import list_images
from effnet.jobs.audit.backbone import backbone
from effnet.training.transfer.features import Features, extract
from effnet.training.transfer.head import PENALTIES, train_head

GOAL = 3.0
A_CLASS, FIRST, BEFORE, MORE = 400, 100, 300, 100


def main() -> None:
    """Choose images in both ways with each seed, and compare."""
    args = options(__doc__ or "", n=5)
    weights = shared("weights", "tf_efficientnet_lite0_headless.safetensors")
    keys = ("centres", "random_first", "margin", "random_more")
    samples: dict[str, list[float]] = {key: [] for key in keys}
    with tempfile.TemporaryDirectory() as scratch:
        unpack(
            shared("data", "cifar10_12k.tar.gz"), Path(scratch),
            lambda part, number: "pool" if part == "train" and number <= A_CLASS else "test" if part == "test" else "",
        )  # fmt: skip
        pool, test = Path(scratch) / "pool", Path(scratch) / "test"
        with backbone(str(weights), model=None, channels=None) as extractor:
            (paths, features), (_, held) = (_features(extractor, folder) for folder in (pool, test))
        number_of = {path: number for number, path in enumerate(paths)}
        for seed in range(args.n):
            rng = np.random.default_rng(seed)
            centres = effnet.suggest(pool, weights=weights, number=FIRST, seed=seed).paths
            samples["centres"].append(_accuracy(features, held, [number_of[path] for path in centres]))
            order = rng.permutation(len(paths))
            samples["random_first"].append(_accuracy(features, held, order[:FIRST]))
            before = order[:BEFORE]
            with tempfile.TemporaryDirectory() as known:
                for row in before:
                    place = Path(known) / Path(paths[row]).relative_to(pool)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(paths[row])
                margin = effnet.suggest(pool, weights=weights, number=MORE, labelled=known, seed=seed).paths
            more = [*before, *(number_of[path] for path in margin)]
            samples["margin"].append(_accuracy(features, held, more))
            samples["random_more"].append(_accuracy(features, held, order[: BEFORE + MORE]))
            print(seed, {key: round(values[-1], 2) for key, values in samples.items()}, flush=True)
    means = {key: float(np.mean(values)) for key, values in samples.items()}
    finish(
        "suggest", args, figure=means["centres"] - means["random_first"], goal=GOAL, unit="points of accuracy",
        better="higher", samples=samples,
        details={"first": FIRST, "before": BEFORE, "more": MORE, "gain_more": means["margin"] - means["random_more"]},
    )  # fmt: skip


def _features(extractor, folder: Path) -> tuple[list[str], tuple[Features, np.ndarray]]:  # type: ignore[no-untyped-def]
    """Return the paths of a folder of classes, and their features and classes."""
    paths = list(list_images(str(folder)).paths)
    names = sorted({Path(path).parent.name for path in paths})
    labels = np.array([names.index(Path(path).parent.name) for path in paths])
    found = extract(extractor, Split(sources=tuple(paths), labels=labels))
    assert len(found.values) == len(paths), "every image can be read"
    return paths, (found, labels)


def _accuracy(
    pool: tuple[Features, np.ndarray], test: tuple[Features, np.ndarray], rows: "np.ndarray | list[int]"
) -> float:
    """Return the accuracy in percent of a linear classifier of the labelled `rows`."""
    (features, labels), (held, right) = pool, test
    rows = np.asarray(rows)
    known, given = features.values[rows], labels[rows]
    head = train_head(
        known, given, num_classes=labels.max() + 1, val_features=known, val_labels=given, penalties=PENALTIES[:1]
    )
    return 100 * float(((held.values @ head.weight.T + head.bias).argmax(1) == right).mean())


if __name__ == "__main__":
    main()
