"""A detector's part of the report: average precision, classes, sizes, confusions and the worst images."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from effnet.measurement.detection.record import DetectedClass, DetectionScore
from effnet.measurement.detection.text import count_sentence, limit_sentence, small_sentence, threshold_sentence
from effnet.report.annotations import class_counts
from effnet.report.classification.confusion import confusion_svg
from effnet.report.detection.plots import precision_recall_svg, sizes_svg
from effnet.report.detection.worst import worst_shown
from effnet.report.model import Report
from effnet.report.section import Extension, Section
from effnet.report.text import integer, percent

TAG = "object-detection"
"""The hub's name of the task."""

_LONG, _SHOWN_CLASSES, _SHOWN_IMAGES = 20, 10, 6
_WEAKEST = 5
_BACKGROUND = "(background)"


def section(report: Report) -> Section:
    """Return the part of a detector's report."""
    test: DetectionScore = report.test
    missed = f", and misses {percent(1 - test.operating.recall)} of those in the test images" if test.operating else ""
    return Section(
        sentence=f"reaches an AP50 of {percent(test.ap50)} (AP {percent(test.ap)}) on",
        title="Average precision (AP)",
        value=percent(test.ap),
        notes=tuple(_notes(test)),
        lines=tuple(_lines(test)),
        names="Classes",
        limit=f"It finds objects of these classes only{missed}; things that look alike may be taken for them.",
        tag=TAG,
        metrics=("mean_average_precision",),
        page=Extension(template="detection/report.html.j2", values=lambda images: _page(report, images)),
        card=Extension(template="detection/card.md.j2", values=lambda _: _card(report)),
    )


def _notes(test: DetectionScore) -> Iterable[str]:
    if test.ap_interval:
        yield f"95 % CI: {' to '.join(map(percent, test.ap_interval))}"
    yield f"AP50: {percent(test.ap50)}"
    if test.ap50_interval:
        yield f"95 % CI: {' to '.join(map(percent, test.ap50_interval))}"
    if test.operating:
        yield f"best F1: {test.operating.f1:.3f}" if test.chosen else f"F1: {test.operating.f1:.3f}"


def _lines(test: DetectionScore) -> Iterable[str]:
    """Yield the sentences on the test."""
    own = test.figures
    yield (
        f"The average precision (AP) is {percent(test.ap)}: the mean over overlaps of 50 to 95 %. At an overlap of "
        f"50 % it is {percent(test.ap50)} (AP50), at 75 % {percent(own.ap75)}."
    )
    sizes = {
        "small objects (under 32 x 32 pixels)": own.ap_small,
        "medium ones": own.ap_medium,
        "large ones (96 x 96 and more)": own.ap_large,
    }
    if known := [f"{percent(value)} for {size}" for size, value in sizes.items() if value is not None]:
        yield f"By size in the original images, AP is {', '.join(known)}."
    if sentence := limit_sentence(test):
        yield _as_sentence(sentence)
    if test.operating:
        source = "chosen on these images for the best F1" if test.chosen else "chosen on the validation images"
        yield f"{_as_sentence(threshold_sentence(test))[:-1]}; this threshold was {source}."
        yield _as_sentence(count_sentence(test))
    if sentence := small_sentence(test.sizes):
        yield _as_sentence(sentence)
    if test.difficult:
        yield f"{integer(test.difficult)} objects marked as difficult or crowd do not count, and may be found or not."


def _as_sentence(text: str) -> str:
    """Return words of the terminal as a sentence of a page."""
    return f"{text[0].upper()}{text[1:]}.".replace("%", "\xa0%").replace(" \xa0%", "\xa0%")


def _page(report: Report, images: Iterable[np.ndarray]) -> dict[str, Any]:
    test: DetectionScore = report.test
    names = report.dataset.class_names
    counts = class_counts(report.dataset.annotations, len(names))
    rows = _class_rows(test, counts)
    worst = worst_shown(test.mistakes, images, names)
    return {
        "recall_plot": partial(precision_recall_svg, test),
        "sizes_plot": partial(sizes_svg, test),
        "confusion_plot": partial(confusion_svg, test.confusion, (*names, _BACKGROUND), background=True),
        "split_heads": counts["heads"],
        "classes": rows[:_SHOWN_CLASSES] if len(rows) > _LONG else rows,
        "more_classes": rows[_SHOWN_CLASSES:] if len(rows) > _LONG else [],
        "worst": worst[:_SHOWN_IMAGES],
        "more_worst": worst[_SHOWN_IMAGES:],
        "images_shown": sum(each["true"] is not None for each in worst),
        "annotations": report.dataset.annotations,
    }


def _class_rows(test: DetectionScore, counts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the classes, in their own order if they are few, the weakest first if they are many."""
    rows = [
        {"class": each, "counts": counts["rows"][i], "unseen": i in counts["unseen"]}
        for i, each in enumerate(test.per_class)
    ]
    return rows if len(rows) <= _LONG else sorted(rows, key=lambda row: _weakness(row["class"]))


def _weakness(row: DetectedClass) -> tuple[bool, float]:
    """Return what sorts the weakest classes to the front, those without objects to the end."""
    return row.ap is None, row.ap or 0.0


def _card(report: Report) -> dict[str, Any]:
    classes = [each for each in report.test.per_class if each.support]
    return {"weakest": sorted(classes, key=_weakness)[:_WEAKEST]}
