"""What a detector's threshold decides: precision and recall, the best F1, and confusions, at an overlap of 0.5."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.record import Annotated
from effnet.measurement.detection.matching import ClassMatches, overlaps
from effnet.tasks.boxes.record import Detections

_MOST_POINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """The detections of at least the score `threshold`: precision, recall and F1, 0 if there are none."""

    threshold: float
    precision: float
    recall: float
    f1: float


def curve(matches: Sequence[ClassMatches]) -> list[Operating]:
    """Return the operating points of the classes together, from the highest threshold; empty if no object counts.

    Of one class, give it alone. Equal scores are one point; of more than 200, those are kept that show the curve.
    """
    points = _points(matches)
    if points is None:
        return []
    thresholds, true, false, positives = points
    places = np.arange(len(thresholds))
    if len(places) > _MOST_POINTS:
        # Evenly along the recall, and the ends.
        wanted = np.linspace(0, true[-1], _MOST_POINTS)
        places = np.unique(np.concatenate((np.searchsorted(true, wanted), [0, len(places) - 1])))
        places = places[places < len(thresholds)]
    return [_operating(thresholds[i], true[i], false[i], positives) for i in places.tolist()]


def best_f1(matches: Sequence[ClassMatches]) -> Operating | None:
    """Return the threshold with the highest F1 of the classes together; None if no object counts or none is found.

    The threshold lies in the middle between the lowest score that it keeps and the next one, so that rounding, as of
    int8, changes little.
    """
    points = _points(matches)
    if points is None:
        return None
    thresholds, true, false, positives = points
    place = int((2 * true / (true + false + positives)).argmax())
    if not true[place]:
        return None
    lower = thresholds[place + 1] if place + 1 < len(thresholds) else 0.0
    return _operating((thresholds[place] + lower) / 2, true[place], false[place], positives)


def _points(matches: Sequence[ClassMatches]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
    """Return the distinct scores from the highest, and the right and wrong detections down to each."""
    positives = int(sum(one.positives[:, 0].sum() for one in matches))
    scores = np.concatenate([np.empty(0), *(one.scores for one in matches)])
    if not positives or not len(scores):
        return None
    right = np.concatenate([one.right[0, 0] for one in matches])
    wrong = ~right & ~np.concatenate([one.ignored[0, 0] for one in matches])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.append(scores[1:] < scores[:-1], True)
    return scores[last], right[order].cumsum()[last], wrong[order].cumsum()[last], positives


def _operating(threshold: float, true: int, false: int, positives: int) -> Operating:
    return Operating(
        threshold=float(threshold),
        precision=float(true / max(true + false, 1)),
        recall=float(true / positives),
        f1=float(2 * true / (true + false + positives)),
    )


def confusion(
    truths: Sequence[Annotated],
    detections: Sequence[Detections],
    *,
    num_classes: int,
    threshold: float,
    iou: float = 0.5,
) -> np.ndarray:
    """Return how often class i is detected as class j, int64 [classes + 1, classes + 1]; the last is the background.

    Pairs are made across classes, those of the largest overlap first. Row `num_classes` are detections of nothing,
    column `num_classes` are objects that were missed. Crowds, difficult objects and detections of these do not count.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for truth, every in zip(truths, detections, strict=True):
        found = every.above(threshold)
        counts_not = truth.crowd | truth.difficult
        ious = overlaps(found.boxes.astype(np.float64), truth.boxes, truth.crowd)
        pairs = _pairs(ious[:, ~counts_not], iou)
        objects = truth.classes[~counts_not]
        free = np.ones(len(found), bool)
        missed = np.ones(len(objects), bool)
        for detection, thing in pairs:
            counts[objects[thing], found.classes[detection]] += 1
            free[detection] = missed[thing] = False
        free &= ~(ious[:, counts_not] >= iou).any(1)
        counts[num_classes] += np.bincount(found.classes[free], minlength=num_classes + 1)
        counts[:, num_classes] += np.bincount(objects[missed], minlength=num_classes + 1)
    return counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What became of the d detections and n objects of an image: bool [d] and [n].

    A detection that is neither `right` nor `wrong` is one of an object that does not count. `missed` are objects that
    count.
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


def outcome_of(truth: Annotated, found: Detections, *, iou: float = 0.5) -> Outcome:
    """Return what became of the detections and objects of an image; pairs are those of `confusion`, within a class."""
    counts = np.flatnonzero(~(truth.crowd | truth.difficult))
    ious = overlaps(found.boxes.astype(np.float64), truth.boxes, truth.crowd)
    ious[found.classes[:, None] != truth.classes[None]] = 0
    right, missed = np.zeros(len(found), bool), np.zeros(len(truth.boxes), bool)
    missed[counts] = True
    for detection, thing in _pairs(ious[:, counts], iou):
        right[detection], missed[counts[thing]] = True, False
    others = np.delete(ious, counts, axis=1)
    return Outcome(right=right, wrong=~right & ~(others >= iou).any(1), missed=missed)


def image_counts(
    truths: Sequence[Annotated], detections: Sequence[Detections], *, threshold: float, iou: float = 0.5
) -> np.ndarray:
    """Return the detections of each image that are right, that are wrong, and the objects missed, int64 [images, 3].

    Images with most wrong and missed are the ones to look at.
    """
    counts = np.zeros((len(truths), 3), np.int64)
    for row, truth, every in zip(counts, truths, detections, strict=True):
        found = outcome_of(truth, every.above(threshold), iou=iou)
        row[:] = found.right.sum(), found.wrong.sum(), found.missed.sum()
    return counts


def _pairs(ious: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Return the pairs of at least this overlap, the largest first, each detection and each object once."""
    rows, columns = np.nonzero(ious >= least)
    order = np.argsort(-ious[rows, columns], kind="stable")
    used_rows, used_columns, pairs = set(), set(), []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs
