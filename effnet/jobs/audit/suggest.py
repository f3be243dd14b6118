"""The verb suggest: which images of a folder to label next."""

import os
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import DataLike, Dataset, Split, read_dataset
from effnet.data.sources.folder import list_images
from effnet.errors import InputError, MissingExtraError
from effnet.jobs.audit.backbone import Progress, backbone, titled
from effnet.measurement.neighbours import unit_features
from effnet.system.text import printable
from effnet.training.transfer.features import Extractor, extract
from effnet.training.transfer.head import PENALTIES, train_head

# Features are reduced to so many directions before they are clustered.
_DIRECTIONS = 64
# Of so many times the requested images, the least sure ones, those are suggested that differ from each other.
_POOL = 5
# An image this close to a labelled one, by the cosine of their features, is a copy of it.
_COPY = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """The images to label, the most useful first, of `images` that have no label yet.

    `by` is "centres" if they are typical of the folder, "margin" if a classifier of the labelled images is unsure of
    them. `margins` are the differences of its two largest probabilities, empty for centres. `copies` of labelled images
    and `unreadable` files are not among `images`.
    """

    paths: tuple[str, ...]
    by: str
    margins: tuple[float, ...]
    images: int
    copies: int
    unreadable: int


def suggest(
    folder: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str],
    number: int = 100,
    labelled: DataLike | None = None,
    model: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Suggestions:
    """Return which `number` images below `folder` to label next, by features of pretrained `weights`.

    Without `labelled` images these are the ones nearest to the centres of as many clusters (k-means); with them, those
    of which a linear classifier trained on them is least sure (the margin of its two best classes), one of each of as
    many clusters of them. `weights` and `model` are as in `effnet.load_pretrained`. `progress` is called with a title,
    the number done and the total.

    Raises InputError for a number below 1 or a folder with fewer images than that, DataError for labels other than
    classes, WeightsError for weights that cannot be read.
    """
    if number < 1:
        raise InputError(f"the number of images to suggest must be at least 1; got {number}")
    name = printable(os.fspath(folder))
    if not os.path.isdir(folder):
        raise InputError(f"FOLDER must be a folder of images; {name} is none")
    paths = list_images(os.fspath(folder)).paths
    if not paths:
        raise InputError(f"there must be images in {name}; none were found")
    dataset = None if labelled is None else _labelled(labelled, seed)
    known: tuple[np.ndarray, np.ndarray] | None = None
    with backbone(os.fspath(weights), model=model, channels=dataset.channels if dataset else None) as extractor:
        split = Split(sources=paths, labels=np.zeros(len(paths), np.int64))
        pool = extract(extractor, split, progress=titled("computing features", progress))
        if dataset is not None:
            known = _known(dataset, extractor, progress)
    fresh = np.arange(len(pool.values))
    if known is not None:
        fresh = np.flatnonzero((unit_features(pool.values) @ unit_features(known[0]).T).max(1) < _COPY)
    if len(fresh) < number:
        raise InputError(
            f"there must be at least {number} images without a label in {name}; there are {len(fresh)}: ask for fewer"
        )
    chosen, margins = _chosen(pool.values[fresh], known, number, seed)
    return Suggestions(
        paths=tuple(paths[pool.indices[fresh[row]]] for row in chosen), by="centres" if known is None else "margin",
        margins=tuple(map(float, margins)), images=len(fresh), copies=len(pool.values) - len(fresh),
        unreadable=len(paths) - len(pool.values),
    )  # fmt: skip


def _chosen(
    features: np.ndarray, known: tuple[np.ndarray, np.ndarray] | None, number: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the images to label, and their margins: none without labelled images."""
    if known is None:
        return _centres(features, number, seed), np.empty(0)
    margins = _margins(features, *known)
    unsure = np.argsort(margins, kind="stable")[: _POOL * number]
    chosen = unsure[_centres(features[unsure], number, seed)]
    chosen = chosen[np.argsort(margins[chosen], kind="stable")]
    return chosen, margins[chosen]


def _labelled(labelled: DataLike, seed: int) -> Dataset:
    dataset = labelled if isinstance(labelled, Dataset) else read_dataset(labelled, seed=seed)
    if not dataset.label_kind.classes:
        raise InputError(f"labelled images must have classes; those of {printable(dataset.name)} have other labels")
    return dataset


def _known(dataset: Dataset, extractor: Extractor, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and the classes of all labelled images; those of test are not learnt from, but known."""
    parts = [split for split in (dataset.train, dataset.val, dataset.test) if len(split)]
    found = [extract(extractor, split, progress=titled("reading labelled images", progress)) for split in parts]
    labels = [split.labels[each.indices] for split, each in zip(parts, found, strict=True)]
    return np.concatenate([each.values for each in found]), np.concatenate(labels)


def _margins(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the difference of the two largest probabilities of each image, by a head on the labelled ones."""
    present = np.unique(labels)
    if len(present) < 2:
        raise InputError(f"labelled images must have two classes or more; got {len(present)}")
    places = np.searchsorted(present, labels)
    head = train_head(
        known, places, num_classes=len(present), val_features=known, val_labels=places, penalties=PENALTIES[:1]
    )
    logits = features @ head.weight.T + head.bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    two = np.sort(shares / shares.sum(1, keepdims=True), axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def _centres(features: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Return the rows nearest to the centres of `number` clusters, those of the largest clusters first."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    if len(features) == number:
        return np.arange(number)
    rows = unit_features(features)
    rows = PCA(min(_DIRECTIONS, *rows.shape), random_state=seed).fit_transform(rows)
    clusters = KMeans(number, n_init=1, random_state=seed).fit(rows)
    distances = ((rows - clusters.cluster_centers_[clusters.labels_]) ** 2).sum(1)
    order = np.lexsort((distances, clusters.labels_))
    numbers, firsts, sizes = np.unique(clusters.labels_[order], return_index=True, return_counts=True)
    nearest = order[firsts][np.argsort(-sizes, kind="stable")]
    if len(numbers) < number:  # copies fill fewer clusters
        rest = np.setdiff1d(np.arange(len(rows)), nearest)
        nearest = np.concatenate([nearest, rest[: number - len(numbers)]])
    return nearest
