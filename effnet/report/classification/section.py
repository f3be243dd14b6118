"""Classification's part of the report: accuracy, confusions, confidence, abstention and the worst mistakes."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from io import BytesIO
from itertools import islice, zip_longest
from typing import Any

import numpy as np

from effnet.measurement.classification import ClassScore
from effnet.report.classification import confusion, reliability
from effnet.report.classification.balanced import balanced_sentence, prior_sentence
from effnet.report.model import Report
from effnet.report.section import Extension, Section
from effnet.report.text import percent

_LONG = 20
_SHOWN_CLASSES = 10
_WEAKEST_CLASSES = 3
_SHOWN_MISTAKES = 24
_SHOWN_CONFUSIONS = 8
_IMAGE_SIDE = 176


def section(report: Report) -> Section:
    """Return the part of a classifier's report."""
    only = "It knows these classes only"
    rejects = "" if report.test.unknown else "; how many was not measured"
    return Section(
        sentence=f"is right on {percent(report.test.accuracy)} of",
        title="Test accuracy",
        value=percent(report.test.accuracy),
        notes=tuple(_notes(report)),
        names="Classes",
        limit=f"{only}. A threshold rejects many images of anything else, but not all{rejects}."
        if report.test.answered
        else f"{only}, and answers with one of them for any image.",
        tag="image-classification",
        metrics=("accuracy", "balanced_accuracy"),
        page=Extension(template="classification/report.html.j2", values=lambda images: _page(report, images)),
        card=Extension(template="classification/card.md.j2", values=lambda _: _card(report)),
    )


def _notes(report: Report) -> Iterable[str]:
    test = report.test
    low, high = test.confidence
    yield f"95 % CI: {percent(low)} to {percent(high)}"
    if percent(test.balanced_accuracy) != percent(test.accuracy):
        yield f"balanced: {percent(test.balanced_accuracy)}"
    if test.lowest:
        yield f"lowest recall: {percent(test.lowest.recall)} of “{test.lowest.name}”"
    yield f"always “{test.most_frequent.name}”: {percent(test.most_frequent.share)}"


def _page(report: Report, images: Iterable[np.ndarray]) -> dict[str, Any]:
    """Return the values of the sections on the test, the confidence and the mistakes."""
    classes = _ordered_classes(report)
    long = len(classes) > _LONG
    return {
        "balanced": balanced_sentence(report.test),
        "prior": prior_sentence(report.training.balance),
        "confusion_plot": partial(confusion.confusion_svg, report),
        "confusions": _confusions(report),
        "mean_confidence": reliability.mean_confidence(report),
        "reliability_plot": partial(reliability.reliability_svg, report),
        "risk_plot": partial(reliability.risk_coverage_svg, report),
        "threshold_rows": reliability.threshold_rows(report),
        "classes": classes[:_SHOWN_CLASSES] if long else classes,
        "more_classes": classes[_SHOWN_CLASSES:] if long else [],
        "mistakes": mistakes_shown(report, images),
    }


def _card(report: Report) -> dict[str, Any]:
    """Return the values of the card's paragraphs on accuracy and confidence."""
    wrong = [row for row in report.test.per_class if row.f1 < 1]
    return {
        "balanced": balanced_sentence(report.test),
        "prior": prior_sentence(report.training.balance),
        "weakest": sorted(wrong, key=lambda row: row.f1)[:_WEAKEST_CLASSES],
    }


def _ordered_classes(report: Report) -> Sequence[ClassScore]:
    """Return the classes in their own order if they are few, the weakest first if they are many."""
    classes = report.test.per_class
    return classes if len(classes) <= _LONG else sorted(classes, key=lambda row: row.f1)


def _confusions(report: Report) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true class and a wrong prediction."""
    names = report.dataset.class_names
    pairs: list[dict[str, Any]] = [
        {"label": names[i], "predicted": names[j], "count": count, "share": count / sum(row)}
        for i, row in enumerate(report.test.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["share"]))[:_SHOWN_CONFUSIONS]


def mistakes_shown(report: Report, images: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    """Return the worst mistakes with their images, as far as there are any."""
    mistakes = report.test.mistakes[:_SHOWN_MISTAKES]
    # A report read back from its file has no images; the text is still worth showing.
    some = islice(images, len(mistakes))
    shown = [{"image": _data_url(image), "small": max(image.shape[:2]) < 96} for image in some]
    none: Any = {"image": None, "small": False}
    return [asdict(mistake) | extra for mistake, extra in zip_longest(mistakes, shown, fillvalue=none)]


def _data_url(pixels: np.ndarray) -> str | None:
    """Return an image [H, W, C] as a small PNG in a data URL, of its first three bands or its first."""
    from PIL import Image

    bands = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    if not bands.size:
        return None
    seen = bands[..., :3] if bands.shape[2] >= 3 else bands[..., 0]
    image = Image.fromarray(np.ascontiguousarray(seen, dtype=np.uint8))
    image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
