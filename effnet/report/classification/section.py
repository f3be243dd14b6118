"""Classification's part of the report: accuracy, confusions, confidence, abstention and the worst mistakes."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from effnet.measurement.classification.levels import level_words
from effnet.measurement.classification.score import ClassScore
from effnet.report.classification import reliability
from effnet.report.classification.balanced import balanced_sentence, prior_sentence
from effnet.report.classification.confusion import confusion_svg
from effnet.report.classification.known import known_values
from effnet.report.gallery import mistakes_shown
from effnet.report.model import Report
from effnet.report.section import Extension, Section
from effnet.report.text import percent

_LONG = 20
_SHOWN_CLASSES = 10
_WEAKEST_CLASSES = 3
SHOWN_MISTAKES = 24
_SHOWN_CONFUSIONS = 8


def section(report: Report) -> Section:
    """Return the part of a classifier's report."""
    only = "It knows these classes only"
    rejects = "" if report.test.unknown else "; how many was not measured"
    return Section(
        sentence=f"is right on {percent(report.test.accuracy)} of",
        title="Test accuracy",
        value=percent(report.test.accuracy),
        notes=tuple(_notes(report)),
        lines=tuple(_lines(report)),
        names="Classes",
        limit=f"{only}. A threshold rejects many images of anything else, but not all{rejects}."
        if report.test.answered
        else f"{only}, and answers with one of them for any image.",
        tag="image-classification",
        metrics=("accuracy", "balanced_accuracy"),
        page=Extension(template="classification/report.html.j2", values=lambda images: _page(report, images)),
        card=Extension(template="classification/card.md.j2", values=lambda _: _card(report)),
    )


def _lines(report: Report) -> Iterable[str]:
    """Yield sentences on the levels of a hierarchy of classes, and on costs, if the model has them."""
    for level in report.test.levels:
        yield f"By the summed probabilities of the parents, {level_words(level)}."
    if cost := report.test.cost:
        confidence = "Confidence and its calibration are those of the most probable class"
        yield f"Costs decide its answers: {cost.sentence()}. {confidence}."


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
        **known_values(report),
        "balanced": balanced_sentence(report.test),
        "prior": prior_sentence(report.training.balance),
        "confusion_plot": partial(confusion_svg, report.test.confusion, report.dataset.class_names),
        "confusions": _confusions(report),
        "mean_confidence": reliability.mean_confidence(report),
        "reliability_plot": partial(reliability.reliability_svg, report),
        "risk_plot": partial(reliability.risk_coverage_svg, report),
        "threshold_rows": reliability.threshold_rows(report),
        "classes": classes[:_SHOWN_CLASSES] if long else classes,
        "more_classes": classes[_SHOWN_CLASSES:] if long else [],
        "mistakes": mistakes_shown(report.test.mistakes[:SHOWN_MISTAKES], images),
    }


def _card(report: Report) -> dict[str, Any]:
    """Return the values of the card's paragraphs on accuracy and confidence."""
    wrong = [row for row in report.test.per_class if row.f1 < 1]
    return {
        **known_values(report),
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
