"""The figures of a segmenter in numpy: intersection over union from one confusion matrix of all images; no torch.

Masks are integers [height, width]: the class of each pixel, or `IGNORE`, 255, where the truth is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.masks.codes import IGNORE
from effnet.errors import DataError
from effnet.measurement.several.multilabel import drawn, mean_known

BOUNDARY_PIXELS = 2
"""The distance up to which a boundary counts as found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRegion:
    """The figures of one class, which has `pixels` true pixels; None if it is neither true nor predicted anywhere.

    `iou` is the intersection over union, `dice` twice the intersection over the sum, `precision` and `recall` those
    of its pixels. `boundary_f1` is the F1 of its boundaries, None if it has none.
    """

    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary_f1: float | None
    pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationFigures:
    """The figures of a set: counted over the pixels of all images together, not averaged over images.

    `miou` and `mean_dice` are means over the classes that are true or predicted somewhere, `accuracy` is the share of
    right pixels; None if no pixel is known. `confusion` counts pixels [true class][predicted class].
    """

    miou: float | None
    mean_dice: float | None
    mean_boundary_f1: float | None
    accuracy: float | None
    per_class: tuple[ClassRegion, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskCounts:
    """The counts of one image: `confusion` int64 [classes, classes]; `boundary` int64 [classes, 4].

    The columns of `boundary` are the true boundary pixels that are found, all true ones, the predicted ones that are
    right, and all predicted ones.
    """

    confusion: np.ndarray
    boundary: np.ndarray


def count_mask(truth: np.ndarray, predicted: np.ndarray, *, num_classes: int, boundary: bool = True) -> MaskCounts:
    """Return the counts of one image; raise DataError if the masks differ in size or hold other classes.

    Without `boundary`, which takes most of the time, boundaries are not counted.
    """
    confusion = confusion_of(truth, predicted, num_classes=num_classes)
    counts = np.zeros((num_classes, 4), np.int64)
    known = truth != IGNORE
    for number in np.flatnonzero(confusion.sum(0) + confusion.sum(1)).tolist() if boundary else []:
        counts[number] = _boundary_counts(truth == number, predicted == number, known)
    return MaskCounts(confusion=confusion, boundary=counts)


def confusion_of(truth: np.ndarray, predicted: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Return how often class i is predicted as class j, int64 [classes, classes]; ignored pixels do not count."""
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise DataError(
            f"masks must be of one size [height, width]; got {list(truth.shape)} and {list(predicted.shape)}"
        )
    known = truth != IGNORE
    true, found = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    for name, values in (("true", true), ("predicted", found)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise DataError(f"{name} classes must be from 0 to {num_classes - 1}; got {values.min()} to {values.max()}")
    return np.bincount(true * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)


def segmentation_figures(counts: Sequence[MaskCounts]) -> SegmentationFigures:
    """Return the figures of a set from the counts of its images, of which there must be one."""
    confusion = sum((each.confusion for each in counts[1:]), counts[0].confusion)
    boundary = sum((each.boundary for each in counts[1:]), counts[0].boundary)
    right, true, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    iou, dice = _share(right, true + found - right), _share(2 * right, true + found)
    precision, recall = _share(right, found), _share(right, true)
    edges = _boundary_f1(boundary)
    per_class = tuple(
        ClassRegion(
            iou=_or_none(iou[i]),
            dice=_or_none(dice[i]),
            precision=_or_none(precision[i]),
            recall=_or_none(recall[i]),
            boundary_f1=_or_none(edges[i]),
            pixels=int(true[i]),
        )
        for i in range(len(confusion))
    )
    total = int(confusion.sum())
    return SegmentationFigures(
        miou=_or_none(mean_known(iou)),
        mean_dice=_or_none(mean_known(dice)),
        mean_boundary_f1=_or_none(mean_known(edges)),
        accuracy=float(right.sum() / total) if total else None,
        per_class=per_class,
        confusion=tuple(tuple(map(int, row)) for row in confusion),
    )


def image_mious(counts: Sequence[MaskCounts]) -> np.ndarray:
    """Return the mean IoU of each image, over the classes that are true or predicted in it; NaN if none is."""
    return np.array([mean_known(_ious(each.confusion[None])[0]) for each in counts])


def bootstrap_miou(counts: Sequence[MaskCounts], *, seed: int = 0, resamples: int = 1000) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the dataset mIoU if images are drawn with replacement; None if unknown."""
    confusions = np.stack([each.confusion for each in counts]).astype(np.float64)
    flat = confusions.reshape(len(counts), -1)
    found = []
    for weights in drawn(len(counts), resamples=resamples, seed=seed):
        ious = _ious((weights @ flat).reshape(len(weights), *confusions.shape[1:]))
        known = ~np.isnan(ious)
        with np.errstate(invalid="ignore"):
            found.append(np.where(known, ious, 0).sum(1) / known.sum(1))
    values = np.concatenate(found)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _ious(confusions: np.ndarray) -> np.ndarray:
    """Return the IoU of each class, [n, classes], of confusions [n, classes, classes]; NaN for absent classes."""
    right = np.diagonal(confusions, axis1=1, axis2=2)
    return _share(right, confusions.sum(1) + confusions.sum(2) - right)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _boundary_f1(boundary: np.ndarray) -> np.ndarray:
    """Return the F1 of the boundaries of each class, NaN for those that have none."""
    found, true, right, predicted = boundary.T
    recall, precision = _share(found, true), _share(right, predicted)
    recall, precision = np.where(true > 0, recall, 0.0), np.where(predicted > 0, precision, 0.0)
    f1 = _share(2 * precision * recall, precision + recall)
    return np.where(true + predicted > 0, np.where(precision + recall > 0, f1, 0.0), np.nan)


def _boundary_counts(truth: np.ndarray, predicted: np.ndarray, known: np.ndarray) -> tuple[int, int, int, int]:
    """Return the counts of boundary pixels, without those beside pixels that are not known.

    Source: Csurka et al., BMVC 2013, "What is a good evaluation measure for semantic segmentation?".
    """
    inside = ~_grown(~known, 1)
    true, found = _edge(truth) & inside, _edge(predicted & known) & inside
    return (
        int((true & _grown(found, BOUNDARY_PIXELS)).sum()),
        int(true.sum()),
        int((found & _grown(true, BOUNDARY_PIXELS)).sum()),
        int(found.sum()),
    )


def _edge(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that have an adjacent pixel outside it; the border of the image is none."""
    framed = np.pad(mask, 1, mode="edge")
    inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    edge: np.ndarray = mask & ~inner
    return edge


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels up to `radius` from those of a mask."""
    height, width = mask.shape
    framed = np.pad(mask, radius)
    grown = np.zeros_like(mask)
    for down in range(-radius, radius + 1):
        for across in range(-radius, radius + 1):
            if down * down + across * across <= radius * radius:
                top, left = radius + down, radius + across
                grown |= framed[top : top + height, left : left + width]
    return grown
