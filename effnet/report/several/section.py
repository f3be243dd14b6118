"""The report's part on several outputs: each beside its baseline, its classes, tags or numbers, and the mistakes."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from effnet.measurement.classification.levels import level_words
from effnet.measurement.several.outputs import OutputScore
from effnet.measurement.several.text import FIGURES
from effnet.report.gallery import mistakes_shown
from effnet.report.model import Report
from effnet.report.section import Extension, Section
from effnet.report.several.plots import number_svg, outputs_svg
from effnet.report.text import integer, percent, probability, significant

_NOTES = 4
_SHOWN_ROWS = 10
_WEAKEST = 3
_METRICS = {"one": "accuracy", "many": "mean_average_precision", "number": "mae"}


def section(report: Report) -> Section:
    """Return the part of a report of several outputs."""
    kinds = {output.kind for output in report.test.outputs}
    only = "It knows these classes and tags only"
    classes = [output.classes for output in report.test.outputs if output.classes]
    rejects, measured = any(some.answered for some in classes), any(some.unknown for some in classes)
    how_many = "" if measured else "; how many was not measured"
    return Section(
        sentence=_sentence(report.test.outputs, report.test.mean_score),
        title="Mean score",
        value=percent(report.test.mean_score),
        notes=tuple(_notes(report)),
        names="Columns of the last layer",
        limit=f"{only}. A threshold rejects many images of anything else, but not all{how_many}."
        if rejects
        else f"{only}, and answers with them for any image.",
        tag="image-feature-extraction" if kinds == {"number"} else "image-classification",
        metrics=tuple(metric for kind, metric in _METRICS.items() if kind in kinds),
        page=Extension(template="several/report.html.j2", values=lambda images: _page(report, images)),
        card=Extension(template="several/card.md.j2", values=lambda _: _card(report)),
    )


def _sentence(outputs: Sequence[OutputScore], mean: float) -> str:
    """Return what the network does, completed by the test images."""
    if len(outputs) == 1:
        return f"has, for its only output {outputs[0].name}, {FIGURES[outputs[0].kind]} {_value(outputs[0])} on"
    return f"has a mean score of {percent(mean)} over {len(outputs)} outputs on"


def _notes(report: Report) -> Iterable[str]:
    outputs = report.test.outputs
    for output in outputs[:_NOTES]:
        yield f"{output.name}: {FIGURES[output.kind]} {_value(output)}"
    if len(outputs) > _NOTES:
        yield f"and {len(outputs) - _NOTES} more"


def _shown(output: OutputScore, value: float) -> str:
    """Return a value of an output's figure as text."""
    return significant(value) if output.kind == "number" else percent(value)


def _value(output: OutputScore) -> str:
    return _shown(output, output.value)


def _page(report: Report, images: Iterable[np.ndarray]) -> dict[str, Any]:
    shown = mistakes_shown(report.test.mistakes, images)
    return {
        "rows": [_row(output) for output in report.test.outputs],
        "outputs_plot": partial(outputs_svg, report),
        "details": [_details(output, number) for number, output in enumerate(report.test.outputs) if output.known],
        "mistakes": [
            {"output": output.name, "kind": output.kind, "some": some}
            for output in report.test.outputs
            if (some := [mistake for mistake in shown if mistake["output"] == output.name])
        ],
        "images_shown": sum(mistake["image"] is not None for mistake in shown),
    }


def _card(report: Report) -> dict[str, Any]:
    tagged = [output for output in report.test.outputs if output.tags]
    return {
        "rows": [_row(output) for output in report.test.outputs],
        "details": [_details(output, number) for number, output in enumerate(report.test.outputs) if output.known],
        "tags": [(output.name, tag) for output in tagged for tag in output.tags.tags],
        "costs": any(output.classes and output.classes.cost for output in report.test.outputs),
    }


def _row(output: OutputScore) -> dict[str, Any]:
    """Return the row of an output in the table of all."""
    (low, high), verdict = output.interval, _verdict(output)
    return {
        "name": output.name,
        "figure": FIGURES[output.kind],
        "value": _value(output),
        "interval": f"{_shown(output, low)} to {_shown(output, high)}",
        "baseline": _shown(output, output.baseline),
        "guess": _guess(output),
        "known": output.known,
        "verdict": verdict,
        "kind": {"better": "kept", "not better": "missed"}.get(verdict, "open"),
    }


def _verdict(output: OutputScore) -> str:
    """Return in words whether an output is better than its baseline."""
    if not output.known:
        return "not scored"
    if output.chance:
        return "not better"
    return "one class only" if output.classes and output.baseline == 1 else "better"


def _guess(output: OutputScore) -> str:
    """Return what the baseline is, in words."""
    if output.classes:
        return f"always “{output.classes.most_frequent.name}”"
    if output.number:
        return f"always {output.number.median:g}"
    return "a random ranking"


def _details(output: OutputScore, number: int) -> dict[str, Any]:
    """Return the sentences, the plot and the rows of an output; the weakest rows come first if they are many."""
    rows = _ordered(output)
    return {
        "name": output.name,
        "kind": output.kind,
        "sentences": list(_sentences(output)),
        "rows": rows[:_SHOWN_ROWS],
        "more": rows[_SHOWN_ROWS:],
        "weakest": sorted((row for row in rows if row.f1 < 1), key=lambda row: row.f1)[:_WEAKEST],
        "plot": partial(number_svg, output, number=number) if output.number else None,
    }


def _ordered(output: OutputScore) -> Sequence[Any]:
    """Return the classes or tags in their own order if they are few, the weakest first if they are many."""
    rows: Sequence[Any] = output.classes.per_class if output.classes else output.tags.tags if output.tags else ()
    if len(rows) <= _SHOWN_ROWS:
        return rows
    seen = [row for row in rows if row.support]
    return [*sorted(seen, key=lambda row: row.f1), *(row for row in rows if not row.support)]


def _sentences(output: OutputScore) -> Iterable[str]:
    if classes := output.classes:
        low, high = map(percent, classes.balanced_bootstrap)
        balanced, temperature = percent(classes.balanced_accuracy), significant(classes.temperature)
        yield f"The balanced accuracy, the mean recall of the classes, is {balanced} ({low} to {high})."
        yield f"The expected calibration error is {percent(classes.ece)}, at a temperature of {temperature}."
        for level in classes.levels:
            yield f"By the summed probabilities of the parents, {level_words(level)}."
        if answered := classes.answered:
            wrong = "" if answered.error is None else f", {percent(answered.error)} of those answers are wrong"
            yield (
                f"Below a probability of {probability(answered.threshold)} the answer is “unknown”: "
                f"{percent(answered.coverage)} of the images are answered{wrong}."
            )
        if unknown := classes.unknown:
            rejected = "" if unknown.rejected is None else f", of which {percent(unknown.rejected)} are rejected"
            images = f"{integer(unknown.images)} images of none of its classes{rejected}"
            yield f"On {images}, the AUROC of its confidence is {significant(unknown.auroc)}."
        cost = classes.cost
    elif tags := output.tags:
        yield (
            f"At their thresholds, micro F1 is {tags.micro_f1:.3f} and macro F1 {tags.macro_f1:.3f}; all tags are "
            f"right on {percent(tags.exact_match)} of the images. Answering each tag as most images have it reaches "
            f"micro F1 {tags.constant_f1:.3f}, and is right on {percent(tags.constant_match)}."
        )
        cost = tags.cost
    else:
        number = output.number
        assert number is not None
        low, high = map(significant, number.gain)
        median, guess, rmse = f"{number.median:g}", significant(output.baseline), significant(number.rmse)
        yield (
            f"The mean error is {significant(output.value)}; always answering the median, {median}, would be off by "
            f"{guess} (95 % interval of the gain: {low} to {high}). RMSE is {rmse}, R2 {number.r2:.3f}."
        )
        return
    if cost:
        yield f"Costs decide its answers: {cost.sentence()}."
