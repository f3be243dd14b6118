"""A segmenter's part of the report: IoU, classes, confusions and the worst images under their masks."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image

from effnet.measurement.segmentation.record import SegmentationScore, SegmentedClass, WorstMask
from effnet.measurement.segmentation.small import read_small_mask
from effnet.report.annotations import class_counts
from effnet.report.classification.confusion import confusion_svg
from effnet.report.explanation.overlay import as_rgb, data_url
from effnet.report.model import Report
from effnet.report.section import Extension, Section
from effnet.report.text import percent
from effnet.tasks.drawing.colours import hex_of
from effnet.tasks.drawing.regions import background_of, draw_regions
from effnet.tasks.writing.images import palette_of

TAG = "image-segmentation"
"""The hub's name of the task."""

_LONG, _SHOWN_CLASSES, _SHOWN_IMAGES = 20, 10, 6
_WEAKEST = 5


def section(report: Report) -> Section:
    """Return the part of a segmenter's report."""
    test: SegmentationScore = report.test
    return Section(
        sentence=f"reaches a mean IoU of {percent(test.miou)} on",
        title="Mean IoU",
        value=percent(test.miou),
        notes=tuple(_notes(test)),
        lines=tuple(_lines(test)),
        names="Classes",
        limit="It knows these classes only, and answers with one of them for every pixel.",
        tag=TAG,
        metrics=("mean_iou",),
        page=Extension(template="segmentation/report.html.j2", values=lambda images: _page(report, images)),
        card=Extension(template="segmentation/card.md.j2", values=lambda _: _card(report)),
    )


def _notes(test: SegmentationScore) -> Iterable[str]:
    if test.miou_interval:
        yield f"95 % CI: {' to '.join(map(percent, test.miou_interval))}"
    yield f"pixels right: {percent(test.accuracy)}"
    if lowest := min((each for each in test.per_class if each.iou is not None), key=_weakness, default=None):
        yield f"lowest IoU: {percent(lowest.iou)} of “{lowest.name}”"
    if test.constant:
        yield f"always “{test.constant.name}”: {percent(test.constant.miou)}"


def _lines(test: SegmentationScore) -> Iterable[str]:
    """Yield the sentences on the test."""
    interval = f" (95 % interval {' to '.join(map(percent, test.miou_interval))})" if test.miou_interval else ""
    yield (
        f"The mean IoU (intersection over union) of the classes is {percent(test.miou)}{interval}, counted over all "
        f"pixels together; {percent(test.accuracy)} of the pixels are right. The mean Dice coefficient is "
        f"{percent(test.mean_dice)}."
    )
    yield (
        f"The F1 of boundaries that may be off by {test.boundary_pixels} pixels of the original images is "
        f"{percent(test.mean_boundary_f1)}, the mean over the classes."
    )
    if test.constant:
        yield (
            f"Always answering “{test.constant.name}” would reach a mean IoU of {percent(test.constant.miou)}, and be "
            f"right on {percent(test.constant.accuracy)} of the pixels."
        )


def _page(report: Report, images: Iterable[np.ndarray]) -> dict[str, Any]:
    test: SegmentationScore = report.test
    names = report.dataset.class_names
    counts = class_counts(report.dataset.annotations, len(names))
    order = list(range(len(names)))
    if len(names) > _LONG:
        order.sort(key=lambda i: _weakness(test.per_class[i]))
    rows = [{"class": test.per_class[i], "unseen": i in counts["unseen"]} for i in order]
    worst = _worst_shown(test.mistakes, images, names)
    return {
        "confusion_plot": partial(confusion_svg, test.confusion, names, shares=True),
        "classes": rows[:_SHOWN_CLASSES] if len(rows) > _LONG else rows,
        "more_classes": rows[_SHOWN_CLASSES:] if len(rows) > _LONG else [],
        "worst": worst[:_SHOWN_IMAGES],
        "more_worst": worst[_SHOWN_IMAGES:],
        "chips": _chips(names),
        "images_shown": sum(each["true"] is not None for each in worst),
        "annotations": report.dataset.annotations,
    }


def _chips(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the colour and the name of each class of the overlays."""
    background = background_of(names)
    return [
        (hex_of(colour), name)
        for i, (colour, name) in enumerate(zip(palette_of(names), names, strict=True))
        if i != background
    ]


def _worst_shown(
    worst: Sequence[WorstMask], images: Iterable[np.ndarray], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the worst images under their true and predicted masks, as far as there are images."""
    shown = []
    # A report read back from its file has no images; the text is still worth showing.
    for each, image in zip_longest(worst, images):
        if each is None:
            break
        drawn: dict[str, str | None] = {"true": None, "answered": None}
        if image is not None:
            drawn = {"true": _under(image, each.true, names), "answered": _under(image, each.answered, names)}
        shown.append({"mistake": each, **drawn})
    return shown


def _under(image: np.ndarray, mask: str, names: Sequence[str]) -> str:
    """Return an image at the size of a small mask, under it."""
    classes = read_small_mask(mask)
    whole = Image.fromarray(np.ascontiguousarray(as_rgb(image if image.ndim == 3 else image[..., None])))
    small = np.asarray(whole.resize(classes.shape[::-1], Image.Resampling.BOX))
    return data_url(draw_regions(small, classes, names, legend=False))


def _weakness(row: SegmentedClass) -> tuple[bool, float]:
    """Return what sorts the weakest classes to the front, absent ones to the end."""
    return row.iou is None, row.iou or 0.0


def _card(report: Report) -> dict[str, Any]:
    classes = [each for each in report.test.per_class if each.iou is not None]
    return {"weakest": sorted(classes, key=_weakness)[:_WEAKEST]}
