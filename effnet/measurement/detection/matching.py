"""Match detections with annotated objects as COCO does, for all thresholds of overlap and all ranges of size.

Source: cocoapi, PythonAPI/pycocotools/cocoeval.py (evaluateImg), to which the results are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.record import Annotated
from effnet.errors import DataError
from effnet.tasks.boxes.record import Detections

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The overlaps (intersection over union) from which a detection may be one of an object."""

AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""All, small, medium and large objects: areas in pixels of the original image."""

MAX_DETECTIONS = (1, 10, 100)
"""The numbers of detections of one class in an image that count, the highest scores first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMatches:
    """The d detections of one class in all images, and what they were matched with.

    `scores` are float64 [d], `images` the place of their image, int64 [d], `ranks` their place among those of the
    class in the image. `right` and `ignored` are bool [area ranges, thresholds, d]: a detection is right if it is
    matched with an object that counts; it is ignored if it is matched with one that does not, or unmatched and not
    of the size. Others are wrong. `positives` are the objects that count, int64 [images, area ranges].
    """

    scores: np.ndarray
    images: np.ndarray
    ranks: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    positives: np.ndarray


def match(
    truths: Sequence[Annotated],
    detections: Sequence[Detections],
    *,
    num_classes: int,
    max_detections: int = MAX_DETECTIONS[-1],
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
) -> list[ClassMatches]:
    """Return the matches of each class; detections i are those of image i.

    Crowds and objects marked as difficult need not be found; detections of them are ignored, any number of them.
    The overlap with a crowd is the share of the detection that lies in it.
    """
    if len(truths) != len(detections):
        raise DataError(f"there must be detections of every image, {len(truths)}; got {len(detections)}")
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(num_classes)]
    positives = np.zeros((num_classes, len(truths), len(AREA_RANGES)), np.int64)
    for place, (truth, found) in enumerate(zip(truths, detections, strict=True)):
        for number in np.union1d(truth.classes, found.classes).tolist():
            if not 0 <= number < num_classes:
                raise DataError(f"classes must be from 0 to {num_classes - 1}; got {number}")
            which = truth.classes == number
            own = np.flatnonzero(found.classes == number)
            own = own[np.argsort(-found.scores[own], kind="stable")][:max_detections]
            outside = _outside(truth.areas[which]) | truth.crowd[which] | truth.difficult[which]
            positives[number, place] = (~outside).sum(1)
            if not len(own):
                continue
            boxes = found.boxes[own].astype(np.float64)
            right, ignored = _match_image(boxes, truth, which, outside, iou_thresholds)
            ranks = np.arange(len(own))
            parts[number].append((found.scores[own], np.full(len(own), place), ranks, right, ignored))
    none = np.empty((len(AREA_RANGES), len(iou_thresholds), 0), bool)
    empty = (np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64), none, none)
    matches = []
    for number, listed in enumerate(parts):
        scores, images, ranks, right, ignored = (
            np.concatenate(each, axis=-1) for each in zip(empty, *listed, strict=True)
        )
        matches.append(
            ClassMatches(
                scores=scores.astype(np.float64),
                images=images,
                ranks=ranks,
                right=right,
                ignored=ignored,
                positives=positives[number],
            )
        )
    return matches


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Return the intersection over union of boxes [n, 4] and [m, 4], [n, m]; of crowds, over the first area alone."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    other = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = area[:, None] + other[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], area[:, None], union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _outside(areas: np.ndarray) -> np.ndarray:
    """Return whether areas [n] lie outside each range, bool [area ranges, n]."""
    return (areas[None] < AREA_RANGES[:, :1]) | (areas[None] > AREA_RANGES[:, 1:])


def _match_image(
    boxes: np.ndarray, truth: Annotated, which: np.ndarray, outside: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `right` and `ignored` of the detections of one class in an image, the highest score first."""
    crowd = truth.crowd[which]
    ious = overlaps(boxes, truth.boxes[which], crowd)
    matched, ignored = _match(ious, crowd | truth.difficult[which], outside, np.minimum(thresholds, 1 - 1e-10))
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ignored |= ~matched & _outside(areas)[:, None]
    return matched & ~ignored, ignored


def _match(
    ious: np.ndarray, repeats: np.ndarray, outside: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which detections are matched, and with objects that do not count: bool [area ranges, thresholds, d].

    Each takes the free object that it overlaps most, the last of equals, if one that counts reaches the threshold, else
    one that does not. Objects that `repeats` stay free.
    """
    shape = (len(outside), len(thresholds), len(ious))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    near = ious >= thresholds.min()
    best = ious.argmax(1) if ious.shape[1] else np.zeros(len(ious), np.int64)
    alone = near.sum(1) == 1
    alone &= near.sum(0)[best] == 1 if ious.shape[1] else False
    # No other detection wants the only object that these overlap.
    for i in np.flatnonzero(alone).tolist():
        matched[:, :, i] = ious[i, best[i]] >= thresholds
        ignored[:, :, i] = matched[:, :, i] & outside[:, best[i], None]
    taken = np.zeros((*shape[:2], ious.shape[1]), bool)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    for i in np.flatnonzero(near.any(1) & ~alone).tolist():
        wanted = np.flatnonzero(near[i])
        wanted = wanted[np.argsort(ious[i, wanted], kind="stable")]
        free = ~taken[:, :, wanted] | repeats[wanted]
        enough = free & (ious[i, wanted] >= thresholds[:, None])
        counting = enough & ~outside[:, None, wanted]
        chosen = np.where(counting.any(2), _last(counting), _last(enough))
        found = enough.any(2)
        place = wanted[chosen]
        matched[:, :, i] = found
        ignored[:, :, i] = found & outside[rows, place]
        taken[rows, columns, place] |= found
    return matched, ignored


def _last(flags: np.ndarray) -> np.ndarray:
    """Return the place of the last true value of the last axis."""
    place: np.ndarray = flags.shape[2] - 1 - flags[:, :, ::-1].argmax(2)
    return place
