"""The score of a segmenter on images with masks: IoU, boundaries, classes, and the worst images; no torch."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError
from effnet.measurement.segmentation.figures import (
    BOUNDARY_PIXELS,
    MaskCounts,
    bootstrap_miou,
    count_mask,
    segmentation_figures,
)
from effnet.measurement.segmentation.record import (
    CleanSegmentation,
    ConstantMask,
    SegmentationScore,
    SegmentedClass,
    WorstMask,
)
from effnet.measurement.segmentation.small import small_mask
from effnet.measurement.segmentation.text import constant_sentence, lines, table, warnings_about

__all__ = ["SCORE", "CountedImage", "SegmentationScore", "count_image", "lines", "score", "table", "warnings_about"]

SCORE = SegmentationScore

_WORST = 12
# Classes of fewer pixels do not make an image one of the worst.
_LEAST_SHARE = 0.001


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CountedImage:
    """What a score needs of one image: its counts, and small copies of its masks; the masks themselves may go."""

    source: str
    index: int
    counts: MaskCounts
    true: str
    answered: str


def count_image(truth: np.ndarray, predicted: np.ndarray, *, num_classes: int, source: str, index: int) -> CountedImage:
    """Return the counts of one image from its masks, integers [height, width] of its own size, 255 for ignored pixels.

    `source` is its path, `index` its place in the split. Raises DataError if the masks differ in size or hold other
    classes.
    """
    return CountedImage(
        source=source,
        index=index,
        counts=count_mask(truth, predicted, num_classes=num_classes),
        true=small_mask(truth),
        answered=small_mask(predicted),
    )


def score(
    images: Sequence[CountedImage], class_names: Sequence[str], *, leaked: Collection[str] = ()
) -> SegmentationScore:
    """Return the score of images that were counted; `leaked` are the sources of those that training has seen copies of.

    Raises DataError if there is no image.
    """
    if not images:
        raise DataError("a segmenter's score needs at least one image; there is none")
    counts = [image.counts for image in images]
    figures, interval = segmentation_figures(counts), bootstrap_miou(counts)
    confusion = np.array(figures.confusion, np.int64)
    pixels, constant = int(confusion.sum()), _constant(confusion, class_names)
    has_class = np.array([each.confusion.sum(1) > 0 for each in counts]).sum(0)
    return SegmentationScore(
        images=len(images),
        pixels=pixels,
        miou=_or_nan(figures.miou),
        miou_interval=interval,
        mean_dice=figures.mean_dice,
        mean_boundary_f1=figures.mean_boundary_f1,
        boundary_pixels=BOUNDARY_PIXELS,
        accuracy=figures.accuracy,
        constant=constant,
        chance=constant_sentence(_or_nan(figures.miou), interval, constant),
        per_class=tuple(
            SegmentedClass(
                name=name,
                iou=own.iou,
                dice=own.dice,
                precision=own.precision,
                recall=own.recall,
                boundary_f1=own.boundary_f1,
                share=own.pixels / max(1, pixels),
                images=int(number),
            )
            for name, own, number in zip(class_names, figures.per_class, has_class, strict=True)
        ),
        confusion=figures.confusion,
        clean=_clean(images, leaked) if leaked else None,
        mistakes=tuple(_worst(images, class_names)),
    )


def _constant(confusion: np.ndarray, class_names: Sequence[str]) -> ConstantMask | None:
    """Return the figures of the best constant answer, None if no pixel is known."""
    true = confusion.sum(1)
    if not true.any():
        return None
    best, share = int(true.argmax()), float(true.max() / true.sum())
    # Its IoU is its share, that of every other class that has pixels 0.
    return ConstantMask(name=class_names[best], accuracy=share, miou=share / int((true > 0).sum()))


def _clean(images: Sequence[CountedImage], leaked: Collection[str]) -> CleanSegmentation:
    known = frozenset(leaked)
    kept = [image.counts for image in images if image.source not in known]
    miou = _or_nan(segmentation_figures(kept).miou) if kept else math.nan
    return CleanSegmentation(leaked=len(images) - len(kept), images=len(kept), miou=miou)


def _worst(images: Sequence[CountedImage], class_names: Sequence[str]) -> list[WorstMask]:
    """Return the images with the lowest mIoU of the classes that have more than a trace, if any pixel is wrong."""
    mious = np.array([_miou(image.counts.confusion) for image in images])
    worst = []
    for i in np.argsort(mious, kind="stable")[:_WORST].tolist():
        confusion = images[i].counts.confusion
        wrong, known = confusion.copy(), int(confusion.sum())
        np.fill_diagonal(wrong, 0)
        if not wrong.any():
            continue
        label, predicted = np.unravel_index(int(wrong.argmax()), wrong.shape)
        worst.append(
            WorstMask(
                index=images[i].index,
                source=images[i].source,
                miou=float(mious[i]),
                accuracy=float(confusion.trace() / known),
                label=class_names[int(label)],
                predicted=class_names[int(predicted)],
                confused=float(wrong.max() / known),
                true=images[i].true,
                answered=images[i].answered,
            )
        )
    return worst


def _miou(confusion: np.ndarray) -> float:
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    shown = union > _LEAST_SHARE * confusion.sum()
    return float((confusion.diagonal()[shown] / union[shown]).mean()) if shown.any() else math.nan


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
