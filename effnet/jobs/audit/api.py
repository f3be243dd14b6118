"""The verb audit: wrong labels, near-duplicates and outliers of a data set, by features of pretrained weights."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np

from effnet.data.datasets import DataLike, Dataset, Split, read_dataset
from effnet.data.inspection.inspect import inspect_and_join
from effnet.data.inspection.leaks import names_of
from effnet.data.sources.source import Group
from effnet.errors import InputError
from effnet.jobs.audit.backbone import Progress, backbone, titled
from effnet.jobs.audit.copies import copies
from effnet.jobs.audit.record import Audit, LabelError, NearDuplicate, Outlier
from effnet.measurement.label_noise import LabelNoise, label_noise
from effnet.measurement.neighbours import outlier_distances
from effnet.training.transfer.features import extract
from effnet.training.transfer.out_of_fold import NEVER, folds_of, out_of_fold

MOST = 200
"""The number of wrong labels that are listed by default: as many as a person looks at."""
_SPLITS = ("train", "val", "test")
# A label below this probability of being wrong is not listed.
_LEAST_PROBABILITY = 0.1
_OUTLIER_SHARE, _MOST_OUTLIERS = 0.02, 20
# Fewer images a class than this say nothing about each other.
_LEAST_IMAGES = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """All readable images: place, name, split, label and title of each, the features, the numbers of groups and copies.

    `groups` are equal for images that belong together or are copies, `same` for copies that `effnet.inspect` lists.
    """

    places: list[tuple[Split, int]]
    names: list[str]
    splits: list[str]
    labels: np.ndarray
    titles: list[str]
    features: np.ndarray
    groups: np.ndarray
    same: np.ndarray


def audit(
    data: DataLike,
    *,
    weights: str | os.PathLike[str],
    model: str | None = None,
    seed: int = 0,
    most: int = MOST,
    progress: Progress | None = None,
) -> Audit:
    """Return which labels of a data set are probably wrong, its near-duplicates and its outliers.

    Each image is judged by a linear classifier on features of `weights`, trained without the image and its copies. The
    list of wrong labels has at most `most` images, the surest first, with the probability of each; nothing is changed.
    `data` and `seed` are as in `effnet.fit`, `weights` and `model` as in `effnet.load_pretrained`. `progress` is called
    with a title, the number done and the total.

    Raises:
        DataError: the data cannot be read.
        InputError: there are fewer than 20 images that can be read.
        WeightsError: the weights cannot be read.
    """
    if most < 1:
        raise InputError(f"most must be at least 1; got {most}")
    dataset = data if isinstance(data, Dataset) else read_dataset(data, seed=seed)
    dataset, _ = inspect_and_join(dataset, seed=seed, progress=titled("inspecting", progress))
    return audit_of(dataset, weights=os.fspath(weights), model=model, seed=seed, most=most, progress=progress)


def audit_of(
    dataset: Dataset,
    *,
    weights: str,
    model: str | None = None,
    seed: int = 0,
    most: int = MOST,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of an inspected data set."""
    images = images_of(dataset, weights, model, progress=titled("computing features", progress))
    if len(images.names) < _LEAST_IMAGES:
        raise InputError(f"an audit needs at least {_LEAST_IMAGES} images that can be read; got {len(images.names)}")
    judged, noise, classes = _judge(dataset, images, seed=seed, progress=progress)
    errors = () if noise is None else _label_errors(images, np.flatnonzero(judged), noise, classes, most)
    pairs, limit = copies(dataset, images.places, images.features, progress=titled("comparing looks", progress))
    return Audit(
        weights=weights,
        images=len(images.names),
        judged=int(judged.sum()),
        noise_rate=None if noise is None else noise.rate,
        expected_errors=0.0 if noise is None else float(noise.probabilities.sum()),
        label_errors=errors,
        expected_precision=0.0 if noise is None else noise.expected_precision(len(errors)),
        near_duplicates=_near_duplicates(images, pairs),
        least_cosine=limit,
        outliers=_outliers(images),
    )


def _judge(
    dataset: Dataset, images: Images, *, seed: int, progress: Progress | None
) -> tuple[np.ndarray, LabelNoise | None, list[str]]:
    """Return which images are judged, bool [images], what that says of their labels, and the names of their classes.

    Labels are judged if they are classes; an only image of its class is not.
    """
    none = np.zeros(len(images.names), bool)
    if not dataset.label_kind.classes:
        return none, None, []
    fold = folds_of(images.labels, images.groups, seed=seed)
    judged = fold != NEVER
    if not judged.any():
        return none, None, []
    logits = out_of_fold(
        images.features, images.labels, fold, num_classes=len(dataset.class_names),
        progress=titled("training classifiers", progress),
    )[judged]  # fmt: skip
    present = np.isfinite(logits).any(0)
    places = np.cumsum(present) - 1
    classes = [name for name, here in zip(dataset.class_names, present, strict=True) if here]
    return judged, label_noise(logits[:, present], places[images.labels[judged]]), classes


def images_of(
    dataset: Dataset,
    weights: str,
    model: str | None,
    *,
    side: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Images:
    """Return the features of all images of a data set, at `side` pixels or those of the weights."""
    parts = [(name, getattr(dataset, name)) for name in _SPLITS if len(getattr(dataset, name))]
    rows, names, splits, labels, places = [], [], [], [], []
    with backbone(weights, model=model, channels=dataset.channels, side=side) as extractor:
        done, total = 0, sum(len(split) for _, split in parts)
        for name, split in parts:
            before = done
            features = extract(
                extractor, split,
                progress=lambda count, _, before=before: progress(before + count, total) if progress else None,
            )  # fmt: skip
            done += len(split)
            rows.append(features.values)
            listed = _named(split, name)
            names += [listed[index] for index in features.indices]
            splits += [name] * len(features.indices)
            places += [(split, int(index)) for index in features.indices]
            labels += [split.labels[index] for index in features.indices]
    plain = dataset.label_kind.classes
    numbers = np.array(labels) if plain else np.zeros(len(names), np.int64)
    return Images(
        places=places, names=names, splits=splits, labels=numbers, features=np.concatenate(rows),
        groups=group_numbers(names, dataset.groups),
        same=group_numbers(names, [group for group in dataset.groups if group.kind != "group"]),
        titles=[dataset.class_names[number] if plain else "" for number in numbers],
    )  # fmt: skip


def _named(split: Split, name: str) -> list[str]:
    """Return the name of each image of a split; those in memory are numbered."""
    return [found or f"{name}[{index}]" for index, found in enumerate(names_of(split))]


def group_numbers(names: Sequence[str], groups: Sequence[Group]) -> np.ndarray:
    """Return a number for each image, equal for those of one group."""
    places = {name: index for index, name in enumerate(names)}
    found = np.arange(len(names))
    for group in groups:
        rows = [places[name] for name in group.names if name in places]
        if len(rows) > 1:
            found[np.isin(found, found[rows])] = found[rows].min()
    return found


def _label_errors(
    images: Images, judged: np.ndarray, noise: LabelNoise, classes: Sequence[str], most: int
) -> tuple[LabelError, ...]:
    order = np.argsort(-noise.probabilities, kind="stable")[:most]
    return tuple(
        LabelError(
            path=images.names[judged[row]],
            split=images.splits[judged[row]],
            given=images.titles[judged[row]],
            likely=classes[noise.likely[row]],
            probability=float(noise.probabilities[row]),
        )
        for row in order
        if noise.probabilities[row] >= _LEAST_PROBABILITY
    )


def _near_duplicates(images: Images, pairs: Sequence[tuple[int, int, float]]) -> tuple[NearDuplicate, ...]:
    found = [
        NearDuplicate(
            paths=(images.names[one], images.names[other]),
            splits=(images.splits[one], images.splits[other]),
            labels=(images.titles[one], images.titles[other]),
            cosine=cosine,
        )
        for one, other, cosine in pairs
        if images.same[one] != images.same[other]
    ]
    return tuple(sorted(found, key=lambda pair: not pair.across_splits))


def _outliers(images: Images) -> tuple[Outlier, ...]:
    distances = outlier_distances(images.features)
    count = min(_MOST_OUTLIERS, max(1, round(_OUTLIER_SHARE * len(distances))))
    return tuple(
        Outlier(
            path=images.names[row], split=images.splits[row], label=images.titles[row], distance=float(distances[row])
        )
        for row in np.argsort(-distances, kind="stable")[:count]
    )
