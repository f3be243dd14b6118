"""Count the objects or the pixels of each class of a data set that is annotated with boxes or masks."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from effnet.data.annotated.masks.labels import MASKS
from effnet.data.annotated.objects import OBJECTS, classes_in, to_annotated
from effnet.data.annotated.sizes import small_objects
from effnet.data.datasets import Dataset
from effnet.data.inspection.counts import SPLITS, ClassCount
from effnet.system.text import percent, printable

# The side of the input for which small objects are counted: that of EfficientDet-Lite0.
_SIDE = 320
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationCount:
    """The annotations of a data set: the objects or pixels of each class by split, and the images by split.

    `ignored` are the pixels that count nowhere; `advice` is a sentence on objects that are too small, "" if few are.
    """

    unit: Literal["objects", "pixels"]
    images: ClassCount
    classes: tuple[ClassCount, ...]
    ignored: int = 0
    advice: str = ""


def count_annotations(dataset: Dataset) -> AnnotationCount | None:
    """Return the counts of boxes or masks; None for labels of another kind."""
    parts, number = [getattr(dataset, name) for name in SPLITS], len(dataset.class_names)
    ignored, advice = 0, ""
    if dataset.label_kind is OBJECTS:
        counts = [np.bincount(classes_in(part.labels), minlength=number) for part in parts]
        every = [to_annotated(target) for part in parts for target in part.labels]
        finding = small_objects([image for image in every if len(image.boxes)], height=_SIDE, width=_SIDE)
        advice = finding.sentence if finding else ""
    elif dataset.label_kind is MASKS:
        pixels = [sum((mask.pixels for mask in part.labels), np.zeros(number + 1, np.int64)) for part in parts]
        counts, ignored = [each[:-1] for each in pixels], int(sum(each[-1] for each in pixels))
    else:
        return None
    rows = zip(dataset.class_names, *counts, strict=True)
    return AnnotationCount(
        unit="objects" if dataset.label_kind is OBJECTS else "pixels",
        images=_by_split("images", *map(len, parts)),
        classes=tuple(_by_split(name, *row) for name, *row in rows),
        ignored=ignored,
        advice=advice,
    )


def _by_split(name: str, train: int, val: int, test: int) -> ClassCount:
    return ClassCount(name=name, train=int(train), val=int(val), test=int(test))


def describe_annotations(found: AnnotationCount | None) -> list[str]:
    """Return lines for a terminal: the numbers of objects, or the shares of pixels, of each class."""
    if found is None:
        return []
    totals = {split: sum(getattr(one, split) for one in found.classes) for split in SPLITS}
    total, images = sum(totals.values()), found.images
    what = f"{total:,} objects" if found.unit == "objects" else f"{percent(_share(found.ignored, total), 1)} ignored"
    where = f"in {images.train:,} images of train, {images.val:,} of val and {images.test:,} of test"
    classes = "1 class" if len(found.classes) == 1 else f"{len(found.classes):,} classes"
    head = f"{what} of {classes}, {where}" if found.unit == "objects" else f"Masks of {classes}, {where}; {what}"
    lines = [head]
    shown = found.classes if len(found.classes) <= _MOST_SHOWN else found.classes[: _MOST_SHOWN // 2]
    width = max((len(printable(one.name)) for one in shown), default=0)
    for one in shown:
        cells = [f"{_cell(getattr(one, split), totals[split], found.unit):>7} {split}" for split in SPLITS]
        lines.append(f"  {printable(one.name):<{width}}  {'  '.join(cells)}")
    if len(shown) < len(found.classes):
        lines.append(f"  and {len(found.classes) - len(shown):,} more classes")
    return lines + ([found.advice] if found.advice else [])


def _share(ignored: int, counted: int) -> float:
    return ignored / max(1, ignored + counted)


def _cell(count: int, total: int, unit: str) -> str:
    return f"{count:,}" if unit == "objects" else percent(count / max(1, total), 1)
