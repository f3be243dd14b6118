"""Confusion matrices: of the bundle's test split, from report.json, and of the labelled images of --review."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.names import REPORT
from effnet.measurement.intervals import wilson
from effnet.serving.page.scores import Round
from effnet.system.files import read_json

MOST_CLASSES = 40
"""The most classes of which the whole matrix is shown; of more, the largest confusions are."""

_MOST_PAIRS = 60
_SHADES = 9
_BACKGROUND = "no object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A mistake that report.json lists: the file's name as it was then, and the probability of the wrong class."""

    source: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confusion:
    """The counts of a confusion matrix [true, predicted] of the classes `names`; `mistakes` are some of its images."""

    names: tuple[str, ...]
    counts: np.ndarray
    mistakes: tuple[Mistake, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell: its count, its share of the true class as a shade from 0 to 9, and its place."""

    count: int
    shade: int
    true: int
    predicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """A class: its images, the share of them that is right, with its 95 % interval, and the cells of its row."""

    name: str
    images: int
    recall: float | None
    low: float
    high: float
    cells: tuple[Cell, ...]


def of_report(folder: Path, class_names: Sequence[str]) -> Confusion | None:
    """Return the confusion matrix that report.json of a bundle holds; None if there is none for these classes."""
    try:
        test = read_json(folder / REPORT)["test"]
        counts = np.array(test["confusion"], np.float64)
        mistakes = tuple(map(_mistake, test.get("mistakes", ())[:1000]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    names = tuple(class_names)
    if counts.shape == (len(names) + 1,) * 2:
        names = (*names, _BACKGROUND)  # of a detector
    if counts.shape != (len(names),) * 2 or not np.isfinite(counts).all() or (counts < 0).any():
        return None
    return Confusion(names=names, counts=np.round(counts).astype(np.int64), mistakes=mistakes)


def _mistake(data: Mapping[str, Any]) -> Mistake:
    return Mistake(
        source=str(data.get("source", "")), label=str(data.get("label", "")),
        predicted=str(data.get("predicted", "")), probability=float(data.get("probability") or 0.0),
    )  # fmt: skip


def of_round(current: Round) -> Confusion:
    """Return the confusion matrix of the labelled images scored so far."""
    names = current.version.config.class_names
    counts = np.zeros((len(names), len(names)), np.int64)
    for number, label in current.known.labels.items():
        scored = current.scored.get(number)
        if scored is not None and scored.best:
            counts[label, scored.best[0]] += 1
    return Confusion(names=names, counts=counts)


def rows_of(found: Confusion) -> list[ClassRow]:
    """Return the classes in their order, each with its row of the matrix."""
    rows = []
    for true, counts in enumerate(found.counts):
        images, right = int(counts.sum()), int(counts[true])
        low, high = wilson(right, images) if images else (0.0, 0.0)
        cells = tuple(
            Cell(count=int(count), shade=_shade(count / images) if count else 0, true=true, predicted=predicted)
            for predicted, count in enumerate(counts)
        )
        recall = right / images if images else None
        rows.append(ClassRow(name=found.names[true], images=images, recall=recall, low=low, high=high, cells=cells))
    return rows


def _shade(share: float) -> int:
    # One wrong answer among hundreds must still be visible.
    return max(1, round(_SHADES * share))


def pairs_of(found: Confusion) -> list[Cell]:
    """Return the largest confusions, the most frequent first."""
    wrong = found.counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    sums = np.maximum(found.counts.sum(1), 1)
    places = [divmod(int(place), len(wrong)) for place in order]
    return [
        Cell(count=int(wrong[t, p]), shade=_shade(wrong[t, p] / sums[t]), true=t, predicted=p)
        for t, p in places
        if wrong[t, p] > 0
    ]


def images_in(current: Round | None, *, true: int, predicted: int, tested: bool, most: int) -> list[int]:
    """Return the scored images with this label and this answer, the most certain first; if `tested`, of the test split.

    The test split is that of the bundle's own fit.
    """
    if current is None:
        return []
    found = []
    for number, label in current.known.labels.items():
        scored = current.scored.get(number)
        if label != true or scored is None or scored.best[:1] != (predicted,):
            continue
        if not tested or number in current.known.tested:
            found.append((scored.probabilities[0], number))
    return [number for _, number in sorted(found, key=lambda each: (-each[0], each[1]))[:most]]
