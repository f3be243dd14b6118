"""Decide whether a mirrored image keeps its class: from the class names, then from the training images."""

import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.several.one_output import as_classes
from effnet.data.several.outputs import SEVERAL, outputs_of
from effnet.data.view.crop import decoded, open_image_at
from effnet.data.view.resample import resample
from effnet.errors import ImageError
from effnet.system.text import printable

# Left and right: two class names that differ only in these are mirror images. Word stems for inflected words.
_SIDES = (
    ("left", "right"), ("links", "rechts"), ("linke", "rechte"), ("gauche", "droite"), ("gauche", "droit"),
    ("izquierd", "derech"), ("sinistr", "destr"), ("esquerd", "direit"), ("vlevo", "vpravo"), ("lev", "prav"),
    ("lewo", "prawo"), ("lew", "praw"), ("лев", "прав"), ("venstre", "højre"), ("vänster", "höger"),
    ("vasen", "oikea"), ("sol", "sağ"), ("左", "右"), ("왼", "오른"),
)  # fmt: skip
# Training images sampled in all, and per class at most and at least; classes with fewer are ignored.
_SAMPLE, _MOST_A_CLASS, _LEAST_A_CLASS = 1024, 128, 8
# Of several outputs at most these are judged by their images, as each decodes its own sample.
_MOST_OUTPUTS = 4
# Side of thumbnails, cells per side for gradient histograms, and directions in a histogram.
_SIDE, _CELLS, _DIRECTIONS = 32, 4, 8
_FOLDS, _PENALTY = 4, 0.1
# Mirroring is wrong if the classifier loses this share of its accuracy above chance, or this share of two classes'
# images change class, by this many standard deviations above chance. Photographs lose 0 to 30 % and up to 67 % if few
# are aerial, a catalogue whose shoes all point left loses 45 %, handwritten digits lose 78 %.
_LOST, _SWAPPED, _SIGMAS = 0.7, 0.3, 4.0


def with_mirrors_judged(dataset: Dataset) -> Dataset:
    """Return the data set, no longer `mirror_safe` if `why_not_mirrored` finds a reason, which is added as a note."""
    reason = why_not_mirrored(dataset) if dataset.mirror_safe else ""
    if not reason:
        return dataset
    return replace(dataset, mirror_safe=False, notes=(*dataset.notes, f"Images are not mirrored in training: {reason}"))


def why_not_mirrored(dataset: Dataset) -> str:
    """Return the reason why training must not mirror images left to right, as a sentence, or an empty string.

    Only of classes can it be found; for other labels the data set's own `mirror_safe` says so. Of several outputs the
    names of all classes and tags are compared, and the images of the first few outputs of classes.

    Two class names that differ only in left and right are a reason, in several languages. Otherwise a sample of the
    training images decides: mirroring is wrong if a cross-validated linear classifier on edge directions of grey
    thumbnails confuses mirrored images of two classes, or loses most of its accuracy above chance.
    """
    if dataset.label_kind is SEVERAL:
        return _of_several(dataset)
    if not dataset.label_kind.classes:
        return ""
    return _by_names(dataset.class_names) or _by_images(dataset)


def _of_several(dataset: Dataset) -> str:
    """Return the first reason of an output of several, or an empty string."""
    specs = outputs_of(dataset.class_names)
    if reason := next(filter(None, (_by_names(spec.classes) for spec in specs)), ""):
        return reason
    of_classes = [spec.name for spec in specs if spec.kind == "one"][:_MOST_OUTPUTS]
    found = ((name, _by_images(as_classes(dataset, name))) for name in of_classes)
    return next((f"by {printable(name)}, {reason}" for name, reason in found if reason), "")


def _by_names(names: Sequence[str]) -> str:
    if named := mirrored_names(names):
        return f'the classes "{printable(named[0])}" and "{printable(named[1])}" differ only in left and right.'
    return ""


def _by_images(dataset: Dataset) -> str:
    thumbnails, labels = _thumbnails(dataset)
    if len(np.unique(labels)) < 2:
        return ""
    values, turned = _edges(thumbnails), _edges(thumbnails[:, :, ::-1])
    originals, mirrored = _answers(values, turned, labels)
    pair = _swapped(labels, originals, mirrored)
    if pair is not None and _alike(values, turned, labels, pair):
        one, other = (printable(dataset.class_names[label]) for label in pair)
        return f'mirrored images of the class "{one}" look like those of "{other}", and vice versa.'
    known, left = np.mean(originals == labels), np.mean(mirrored == labels)
    if _collapses(labels, originals, mirrored):
        return f"a simple classifier is right on {known:.0%} of the images, but on {left:.0%} of their mirror images."
    return ""


def mirrored_names(names: Sequence[str]) -> tuple[str, str] | None:
    """Return two class names that differ only in words for left and right, or None."""
    plain = {re.sub(r"[\W_]+", " ", name.casefold()): name for name in names}
    for left, right in _SIDES:
        for name, shown in plain.items():
            other = plain.get(name.replace(left, right))
            if left in name and other is not None and other != shown:
                return shown, other
    return None


def _thumbnails(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return grey thumbnails float32 [images, side, side] of a seeded sample of the training split, and their labels.

    Images are drawn evenly over the classes; from data in blocks only those of the first blocks.
    """
    split = dataset.train
    places = np.random.default_rng(0).permutation(len(split))
    if split.blocks is not None:
        places = places[np.argsort(split.blocks.numbers[places], kind="stable")][:_SAMPLE]
    classes = np.unique(split.labels)
    most = min(_MOST_A_CLASS, max(_LEAST_A_CLASS, _SAMPLE // len(classes)))
    own = [places[split.labels[places] == label][:most] for label in classes]
    chosen = [group for group in own if len(group) >= _LEAST_A_CLASS][: _SAMPLE // _LEAST_A_CLASS]

    def thumbnail(index: int) -> np.ndarray | None:
        try:
            with open_image_at(split, index, dataset.decoding) as opened:
                image = decoded(opened, channels=dataset.channels, least=2 * _SIDE)
                small = resample(image, width=_SIDE, height=_SIDE, interpolation="bilinear")
        except ImageError:
            return None
        return small.mean(axis=2, dtype=np.float32)

    indices = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(thumbnail, map(int, indices)))
    good = [i for i, image in enumerate(found) if image is not None]
    images = (
        np.stack([image for image in found if image is not None]) if good else np.zeros((0, _SIDE, _SIDE), np.float32)
    )
    return images, split.labels[indices[good]]


def _edges(images: np.ndarray) -> np.ndarray:
    """Return the strength of edges in each direction and cell, float64 [images, features], of unit length.

    Source: Dalal & Triggs 2005, histograms of oriented gradients, with signed directions.
    """
    down, across = np.gradient(images, axis=(1, 2))
    angle = (np.arctan2(down, across) / (2 * np.pi) * _DIRECTIONS) % _DIRECTIONS
    low = np.floor(angle).astype(int) % _DIRECTIONS
    share = angle - np.floor(angle)
    strength, size = np.hypot(down, across), _SIDE // _CELLS
    planes = [
        strength * ((low == d) * (1 - share) + ((low + 1) % _DIRECTIONS == d) * share) for d in range(_DIRECTIONS)
    ]
    cells = np.stack(planes, axis=-1).reshape(len(images), _CELLS, size, _CELLS, size, _DIRECTIONS).sum(axis=(2, 4))
    found = np.sqrt(cells.reshape(len(images), -1))
    whole = np.sqrt(cells.sum(axis=(1, 2)))  # over all cells
    joined = np.concatenate([found, whole], axis=1).astype(np.float64)
    return joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-6)


def _answers(values: np.ndarray, turned: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of each image and of its mirror image, by a classifier trained on neither.

    `values` and `turned` are the features [images, features] of the images and of their mirror images.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    classes, places = np.unique(labels, return_inverse=True)
    targets = np.eye(len(classes))[places]
    answers = np.zeros((2, len(labels)), np.int64)
    for number in range(_FOLDS):
        seen, held = fold != number, fold == number
        middle, prior = values[seen].mean(axis=0), targets[seen].mean(axis=0)
        own = values[seen] - middle
        # Every class has the same weight, however many images it has.
        weight = 1 / np.maximum(prior[places[seen]], 1e-9)
        gram = own.T @ (own * weight[:, None])
        penalty = _PENALTY * np.trace(gram) / len(gram)
        solved = np.linalg.solve(
            gram + penalty * np.eye(len(gram)), own.T @ ((targets[seen] - prior) * weight[:, None])
        )
        for row, given in enumerate((values, turned)):
            answers[row, held] = classes[((given[held] - middle) @ solved + prior).argmax(axis=1)]
    return answers[0], answers[1]


def _swapped(labels: np.ndarray, originals: np.ndarray, mirrored: np.ndarray) -> tuple[int, int] | None:
    """Return the two classes whose mirrored images are most clearly confused, or None."""
    best, found = _SIGMAS, None
    classes = np.unique(labels)
    for i, one in enumerate(classes):
        for other in classes[i + 1 :]:
            pair = [(labels == a, a, b) for a, b in ((one, other), (other, one))]
            sigmas = []
            for own, a, b in pair:
                to = np.sum(own & (originals == a) & (mirrored == b))
                back = np.sum(own & (originals == b) & (mirrored == a))
                moved = (to - back) / own.sum() >= _SWAPPED
                sigmas.append((to - back) / math.sqrt(max(1, to + back)) if moved else 0.0)
            together = math.hypot(*sigmas) if min(sigmas) > 0 else 0.0
            if together > best:
                best, found = together, (int(one), int(other))
    return found


def _alike(values: np.ndarray, turned: np.ndarray, labels: np.ndarray, pair: tuple[int, int]) -> bool:
    """Return whether mirrored images of one class are much harder to separate from the other class than the classes.

    A mirrored image that resembles no class, such as a shoe in a catalogue where all shoes point left, is assigned to
    some class as well.
    """
    one, other = (np.flatnonzero(labels == label) for label in pair)
    own = np.repeat((0, 1), (len(one), len(other)))
    apart = values[np.concatenate([one, other])]
    mixed = np.concatenate([turned[one], values[other]])
    known = np.mean(_answers(apart, apart, own)[0] == own)
    found = np.mean(_answers(mixed, mixed, own)[0] == own)
    chance = max(len(one), len(other)) / len(own)
    return found - chance < (known - chance) / 2


def _collapses(labels: np.ndarray, originals: np.ndarray, mirrored: np.ndarray) -> bool:
    """Return whether the classifier loses most of its accuracy above chance on mirrored images."""
    right, left = originals == labels, mirrored == labels
    chance = np.unique(labels, return_counts=True)[1].max() / len(labels)
    known, kept = right.mean() - chance, left.mean() - chance
    if known * math.sqrt(len(labels) / (chance * (1 - chance))) < _SIGMAS:
        return False
    lost, won = np.sum(right & ~left), np.sum(left & ~right)
    return kept < (1 - _LOST) * known and (lost - won) / math.sqrt(max(1, lost + won)) >= _SIGMAS
