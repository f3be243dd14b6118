"""The score of a classifier in words, for a terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from effnet.measurement.evaluate import ScoreTable
from effnet.measurement.levels import level_words
from effnet.measurement.unknown import unknown_sentence
from effnet.system.text import percent, printable

if TYPE_CHECKING:
    from effnet.measurement.classification import ClassificationScore


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
    from effnet.measurement.classification import warnings_of

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
