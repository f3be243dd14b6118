"""The score of several outputs in words, for a terminal and the first sentences of a report."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from effnet.measurement.classification.costs import CostScore
from effnet.measurement.classification.levels import level_words
from effnet.measurement.classification.score import Answered
from effnet.measurement.classification.unknown import unknown_sentence
from effnet.measurement.evaluate import ScoreTable
from effnet.measurement.several.outputs import OutputScore
from effnet.system.text import percent, printable

if TYPE_CHECKING:
    from effnet.measurement.several.score import SeveralScore

FIGURES = {"one": "accuracy", "many": "mAP", "number": "mean error (MAE)"}
"""The name of an output's figure by its kind."""


def lines(score: "SeveralScore") -> Iterator[str]:
    """Yield the lines of a score: the mean, the warnings, and each output beside its baseline."""
    plural = "s" if len(score.outputs) > 1 else ""
    yield f"mean score {percent(score.mean_score)} of {len(score.outputs)} output{plural} on {score.images} images"
    for warning in warnings_of(score):
        yield f"WARNING: {warning}"
    for output in score.outputs:
        if output.known:
            yield f"{printable(output.name)}: {output_sentence(output)}"


def warnings_of(score: "SeveralScore") -> list[str]:
    """Return the warnings on a score alone."""
    found = [output.chance for output in score.outputs if output.chance]
    if clean := score.clean:
        images = f"{clean.leaked:,} test images leak: train or val hold a copy of them, or an image of their group"
        rest = (
            f"Without them the mean score is {percent(clean.mean_score)} on {clean.images:,} images."
            if clean.images
            else "No others are left."
        )
        found.append(f"{images}. {rest}")
    return found


def table(score: "SeveralScore") -> ScoreTable:
    """Return a table of the outputs and their figures."""
    rows = []
    for output in score.outputs:
        low, high = (shown(value, output) for value in output.interval)
        values = (shown(output.value, output), f"{low} to {high}", shown(output.baseline, output))
        absent = ("-",) * len(values)
        rows.append(
            (printable(output.name), FIGURES[output.kind], *(values if output.known else absent), str(output.known))
        )
    columns = ("output", "figure", "value", "95 % interval", "baseline", "images")
    return ScoreTable(columns=columns, left=columns[:2], rows=rows)


def shown(value: float, output: OutputScore) -> str:
    """Return a value of an output's figure as text."""
    if value != value:
        return "-"
    return f"{value:.4g}" if output.kind == "number" else percent(value)


def output_sentence(output: OutputScore) -> str:
    """Return a sentence on an output with known images: its figures, and what a constant answer reaches."""
    low, high = (shown(value, output) for value in output.interval)
    first = (
        f"{FIGURES[output.kind]} {shown(output.value, output)} on {output.known} images (95 % interval {low} to {high})"
    )
    if classes := output.classes:
        usual = classes.most_frequent
        parts = [
            f"balanced accuracy {percent(classes.balanced_accuracy)}",
            f"always {printable(usual.name)!r} would reach {percent(usual.share)}",
            f"calibration error (ECE) {percent(classes.ece)}",
            *map(level_words, classes.levels),
        ]
        parts += [_answered(classes.answered)] if classes.answered else []
        parts += [unknown_sentence(classes.unknown)] if classes.unknown else []
        return "; ".join([first, *parts, *_cost(classes.cost)])
    if tags := output.tags:
        parts = [
            f"a random ranking {shown(output.baseline, output)}",
            f"micro F1 {tags.micro_f1:.3f} (constant tags {tags.constant_f1:.3f})",
            f"macro F1 {tags.macro_f1:.3f}",
            f"all tags right on {percent(tags.exact_match)} (constant tags {percent(tags.constant_match)})",
        ]
        return "; ".join([first, *parts, *_cost(tags.cost)])
    assert output.number is not None
    number = output.number
    parts = [
        f"always the median {number.median:g} would be off by {output.baseline:.4g} "
        f"(95 % interval of the gain {number.gain[0]:.4g} to {number.gain[1]:.4g})",
        f"RMSE {number.rmse:.4g}",
        f"R2 {number.r2:.3f}",
    ]
    return "; ".join([first, *parts])


def _answered(found: Answered) -> str:
    wrong = "" if found.error is None else f", {percent(found.error)} of them wrong"
    return f"threshold {found.threshold:.4g}: {percent(found.coverage)} are answered{wrong}"


def _cost(found: CostScore | None) -> list[str]:
    return [found.sentence()] if found else []
