"""COCO's twelve figures of detection, average precision by class, and their spread over images.

Source: cocoapi, PythonAPI/pycocotools/cocoeval.py (accumulate, summarize), to which the results are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.measurement.detection.matching import IOU_THRESHOLDS, MAX_DETECTIONS, ClassMatches
from effnet.measurement.several.multilabel import drawn

RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which precision is averaged."""

# A bootstrap draws at most this many numbers.
_MOST_DRAWN, _RESAMPLES, _LEAST_RESAMPLES = 100_000_000, 1000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionFigures:
    """COCO's figures: average precision and average recall, None if no object counts.

    `ap` is the mean over overlaps of 0.5 to 0.95, `ap50` and `ap75` at one; small objects have less than 32 x 32
    pixels, large ones at least 96 x 96. `ar_1` is the recall of the best detection of each class in an image, `ar_10`
    and `ar_100` of the best 10 and 100, or of those that `max_detections` gives instead.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """The figures of one class, which has `support` objects that count; None if it has none."""

    ap: float | None
    ap50: float | None
    support: int


def figures(
    matches: Sequence[ClassMatches], *, max_detections: tuple[int, int, int] = MAX_DETECTIONS
) -> DetectionFigures:
    """Return the figures of matches by class, which were made with the last of `max_detections`."""
    precision = np.array([[_precision(one, area) for area in range(4)] for one in matches])
    precision = precision.reshape(-1, 4, len(IOU_THRESHOLDS), len(RECALLS))

    def ap(area: int, *, overlap: int | None = None) -> float | None:
        return _mean(precision[:, area] if overlap is None else precision[:, area, overlap])

    def ar(area: int, *, most: int = max_detections[-1]) -> float | None:
        return _mean(np.array([_recall(one, area, most) for one in matches]))

    return DetectionFigures(
        ap=ap(0),
        ap50=ap(0, overlap=0),
        ap75=ap(0, overlap=5),
        ap_small=ap(1),
        ap_medium=ap(2),
        ap_large=ap(3),
        ar_1=ar(0, most=max_detections[0]),
        ar_10=ar(0, most=max_detections[1]),
        ar_100=ar(0),
        ar_small=ar(1),
        ar_medium=ar(2),
        ar_large=ar(3),
    )


def by_class(matches: Sequence[ClassMatches]) -> list[ClassFigures]:
    """Return the figures of each class."""
    found = []
    for one in matches:
        precision = _precision(one, 0)
        found.append(
            ClassFigures(ap=_mean(precision), ap50=_mean(precision[0]), support=int(one.positives[:, 0].sum()))
        )
    return found


def bootstrap(
    matches: Sequence[ClassMatches], *, seed: int = 0, resamples: int | None = None
) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile intervals of "ap" and "ap50" if images are drawn with replacement.

    By default up to 1,000 resamplings, fewer for many detections. Empty if no object counts.
    """
    counted = [one for one in matches if one.positives[:, 0].any()]
    if not counted:
        return {}
    number = len(counted[0].positives)
    work = len(IOU_THRESHOLDS) * max(1, sum(len(one.scores) for one in counted))
    wanted = resamples or int(np.clip(_MOST_DRAWN // work, _LEAST_RESAMPLES, _RESAMPLES))
    means = [resampled(counted, weights) for weights in drawn(number, resamples=wanted, seed=seed)]
    ap = np.concatenate(means)  # [resamples, thresholds]
    known = ap[~np.isnan(ap).any(1)]
    spread = {"ap": known.mean(1), "ap50": known[:, 0]}
    return {
        name: (float(low), float(high))
        for name, values in spread.items()
        for low, high in [np.percentile(values, (2.5, 97.5))]
    }


def resampled(matches: Sequence[ClassMatches], weights: np.ndarray) -> np.ndarray:
    """Return the mean AP of the classes, float64 [resamples, thresholds], if image i counts weights[:, i] times.

    NaN if no object counts.
    """
    total = np.zeros((len(weights), len(IOU_THRESHOLDS)))
    counted = np.zeros(len(weights))
    for one in matches:
        positives = weights @ one.positives[:, 0]
        order = np.argsort(-one.scores, kind="stable")
        each = weights[:, one.images[order]]
        right, ignored = one.right[0][:, order], one.ignored[0][:, order]
        for place in range(len(IOU_THRESHOLDS)):
            if not place or (ignored[place] != ignored[place - 1]).any():
                seen = (each * ~ignored[place]).cumsum(1)
            # Precision and recall rise at right detections alone.
            rises = np.flatnonzero(right[place])
            total[:, place] += _average(each[:, rises].cumsum(1), seen[:, rises], positives)
        counted += positives > 0
    return np.where(counted[:, None] > 0, total / np.maximum(counted, 1)[:, None], np.nan)


def _average(true: np.ndarray, seen: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the mean precision at the recalls, [resamples]; 0 without positives.

    `true` and `seen`, [resamples, right detections], count the right detections and all down to each.
    """
    precision = _envelope(true / np.maximum(seen, 1e-300))
    recall = true / np.maximum(positives, 1e-300)[:, None]
    reached = np.diff(np.searchsorted(RECALLS, recall, side="right"), axis=1, prepend=0)
    found: np.ndarray = np.where(positives > 0, (precision * reached).sum(1) / len(RECALLS), 0.0)
    return found


def _precision(one: ClassMatches, area: int) -> np.ndarray:
    """Return the precision at each threshold and recall, [thresholds, recalls], NaN if no object counts."""
    positives = int(one.positives[:, area].sum())
    if not positives:
        return np.full((len(IOU_THRESHOLDS), len(RECALLS)), np.nan)
    order = np.argsort(-one.scores, kind="stable")
    right, ignored = one.right[area][:, order], one.ignored[area][:, order]
    true = right.cumsum(1, dtype=np.float64)
    false = (~right & ~ignored).cumsum(1, dtype=np.float64)
    precision = _envelope(true / (false + true + np.spacing(1)))
    recall = true / positives
    return np.array([_at_recalls(r, p) for r, p in zip(recall, precision, strict=True)])


def _recall(one: ClassMatches, area: int, most: int) -> np.ndarray:
    """Return the recall at each threshold with the best `most` detections of an image, NaN if no object counts."""
    positives = int(one.positives[:, area].sum())
    if not positives:
        return np.full(len(IOU_THRESHOLDS), np.nan)
    recall: np.ndarray = one.right[area][:, one.ranks < most].sum(1) / positives
    return recall


def _envelope(precision: np.ndarray) -> np.ndarray:
    """Return the largest precision at this or a larger recall, [rows, d]."""
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def _at_recalls(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    places = np.searchsorted(recall, RECALLS, side="left")
    found = np.zeros(len(RECALLS))
    reached = places < len(recall)
    found[reached] = precision[places[reached]]
    return found


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
