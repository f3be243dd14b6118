"""The score of a classifier in words: the lines for a terminal, and the warnings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from effnet.data.inspection.findings import BALANCE_ADVICE, IMBALANCED
from effnet.measurement.classification.levels import level_words
from effnet.measurement.classification.unknown import unknown_sentence
from effnet.measurement.evaluate import ScoreTable
from effnet.measurement.intervals import wilson
from effnet.system.text import percent, printable

if TYPE_CHECKING:
    from effnet.measurement.classification.score import ClassificationScore, Clean


def balanced_lines(test: "ClassificationScore") -> Iterator[str]:
    """Yield lines of a score: balanced accuracy if it differs from accuracy, and the lowest recall."""
    if percent(test.balanced_accuracy) != percent(test.accuracy):
        low, high = map(percent, test.balanced_bootstrap)
        yield (
            f"balanced accuracy {percent(test.balanced_accuracy)} (bootstrap {low} to {high}): the mean recall of "
            "the classes"
        )
    if lowest := test.lowest:
        name, recall = printable(lowest.name), percent(lowest.recall)
        yield f"lowest recall: {recall} of the {lowest.support} images of {name}"


def lines(score: "ClassificationScore") -> Iterator[str]:
    """Yield the lines of a score other than its table of classes."""
    accuracy, low, high = percent(score.accuracy), *map(percent, score.confidence)
    least, most = map(percent, score.bootstrap)
    yield (
        f"accuracy {accuracy} on {score.images} images (95 % confidence {low} to {high}; bootstrap {least} to {most})"
    )
    yield from balanced_lines(score)
    yield from map(level_words, score.levels)
    for warning in warnings_of(score):
        yield f"WARNING: {warning}"
    if not score.chance:  # its warning says so as well
        yield f"always answering {score.most_frequent.name!r} would reach {percent(score.most_frequent.share)}"
    if score.top5 is not None:
        yield f"top-5 accuracy {percent(score.top5)}"
    sure, raw = score.sureness, score.uncalibrated
    yield (
        f"calibration error (ECE) {sure.ece:.2%}, negative log-likelihood {sure.nll:.3f}; "
        f"without the temperature {raw.ece:.2%} and {raw.nll:.3f}"
    )
    if score.answered is not None:
        error = "" if score.answered.error is None else f", {score.answered.error:.2%} of them wrong"
        yield f"threshold {score.answered.threshold:.4g}: {percent(score.answered.coverage)} are answered{error}"
    if score.cost is not None:
        yield score.cost.sentence()
    if score.unknown is not None:
        yield unknown_sentence(score.unknown)


def table(score: "ClassificationScore") -> ScoreTable:
    """Return a table of the classes that have images."""
    shown = [c for c in score.per_class if c.support]
    absent = len(score.per_class) - len(shown)
    return ScoreTable(
        columns=("class", "precision", "recall", "f1", "images"),
        left=("class",),
        rows=[(c.name, percent(c.precision, 1), percent(c.recall, 1), f"{c.f1:.3f}", c.support) for c in shown],
        note=f"{absent} more classes have no image here." if absent else "",
    )


def warnings_of(score: "ClassificationScore") -> list[str]:
    """Return the warnings that users of the model must see first: it is at chance level, or its test images leak."""
    return [score.chance] * bool(score.chance) + ([clean_sentence(score.clean)] if score.clean else [])


def clean_sentence(clean: "Clean") -> str:
    """Return a sentence on the accuracy without the images that leak."""
    images = f"{clean.leaked:,} test images leak: train or val hold a copy of them, or an image of their group"
    if clean.accuracy is None or clean.confidence is None:
        return f"All {images}. The accuracy without them is unknown."
    low, high = clean.confidence
    return (
        f"{images}. Without them the accuracy is {percent(clean.accuracy)} on {clean.images:,} images "
        f"(95 % confidence {percent(low)} to {percent(high)})."
    )


def rare_class_warning(
    score: "ClassificationScore", train_labels: np.ndarray, class_names: tuple[str, ...], *, balanced: bool
) -> list[str]:
    """Return a sentence on a class that is rare in training and missed far more often than others, if there is one.

    `balanced` says that training already balanced the classes.
    """
    found = score.lowest
    if found is None:
        return []
    counts = np.bincount(train_labels, minlength=len(class_names))
    count = int(counts[class_names.index(found.name)])
    missed = wilson(round(found.recall * found.support), found.support)[1] < score.accuracy
    if not missed or counts.max() < IMBALANCED * count:
        return []
    advice = "more images of it would help most" if balanced else f"{BALANCE_ADVICE}, at some cost to the frequent ones"
    return [
        f"Only {percent(found.recall, 1)} of the {found.support:,} test images of {found.name!r} are classified "
        f"correctly, against {percent(score.accuracy, 1)} of all; it has {count:,} of {len(train_labels):,} training "
        f"images: {advice}."
    ]
