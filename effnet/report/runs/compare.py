"""A comparison of runs as one page: their results, the settings in which they differ, and their curves."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.errors import InputError
from effnet.report import text as wording
from effnet.report.plots.figure import BLUE
from effnet.report.render import render, replace_text
from effnet.report.runs.curves import Against, curves_svg, look
from effnet.report.runs.lenient import finite
from effnet.report.runs.read import Run, flatten
from effnet.system.lock import alone_in
from effnet.system.records import to_data
from effnet.tasks.registry import find_task

# The key in metrics.jsonl, the title, and whether it is a share; the figures of the runs' tasks follow.
_LOSSES = (("loss", "Training loss", False), ("val_loss", "Validation loss", False))
_AGAINST: tuple[Against, ...] = ("epochs", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table of results: a text for each run, and whether it is the best value."""

    label: str
    texts: Sequence[str]
    best: Sequence[bool]


def write_comparison(runs: Sequence[Run], path: Path) -> None:
    """Write the page on `runs` to `path`, whole or not at all.

    Raises InputError if there is no run, if one has neither an epoch nor a result, or if `path` cannot be written to.
    """
    if not runs:
        raise InputError("there must be at least one RUN to compare; got none")
    empty = [str(run.folder) for run in runs if not run.history and run.val_figure is None]
    if empty:
        raise InputError(
            f"each RUN must have finished an epoch; {', '.join(empty)} has not. `effnet runs list` shows their progress"
        )
    if path.is_dir():
        raise InputError(f"--out must be the page to write, such as {path / 'compare.html'}; {path} is a folder")
    if not path.parent.is_dir():
        raise InputError(f"--out must lie in a folder that exists; there is no folder {path.parent}")
    try:
        with alone_in(path):
            replace_text(path, render_comparison(runs))
    except OSError as error:
        raise InputError(f"--out must be a file that can be written; {path} cannot: {error.strerror}") from error


def render_comparison(runs: Sequence[Run]) -> str:
    """Return the page on `runs`, which loads nothing from anywhere."""
    names = [to_data(name) for name in short_names([run.folder for run in runs])]
    keys = [_legend_entry(run, name, index) for index, (run, name) in enumerate(zip(runs, names, strict=True))]
    pairs = [
        tuple(curves_svg(runs, names, key, title=title, against=against, share=share) for against in _AGAINST)
        for key, title, share in (*_LOSSES, *_curves(runs))
    ]
    rate = curves_svg(runs, names, "learning_rate", title="Learning rate", against="epochs")
    values = {
        "keys": keys,
        "sentence": _sentence(runs, names),
        "results": results(runs),
        "differing": difference(runs),
        "alike": _alike(runs),
        "curves": [svg for pair in [*pairs, (rate,)] for svg in pair if svg],
        "without": [name for run, name in zip(runs, names, strict=True) if not run.history],
    }
    return render("compare.html.j2", to_data(values))


def _curves(runs: Sequence[Run]) -> list[tuple[str, str, bool]]:
    """Return the curve of each task's figure: its key in metrics.jsonl, its title, and whether it is a share."""
    found = dict.fromkeys(find_task(run.task).figure for run in runs)
    return [(f"val_{figure.key}", f"Validation {figure.title}", figure.share) for figure in found]


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest end of each folder's path that distinguishes them all."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    longest = max(map(len, parts), default=0)
    for count in range(1, longest + 1):
        names = [os.path.join(*path[-count:]) for path in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names if parts else []


def difference(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return each setting in which the runs differ, by its dotted name, with one text for each run."""
    return {key: texts for key, texts in _settings(runs).items() if len(set(texts)) > 1}


def results(runs: Sequence[Run]) -> list[Result]:
    """Return the results of the runs, each that at least one of them has."""
    rows = [
        *_figures(runs),
        _result("Calibration error", _measured(runs, "ece"), wording.percent, better=min),
        _result("Best epoch", [run.best_epoch for run in runs], wording.integer),
        _result("Epochs", [run.epochs for run in runs], wording.integer),
        _result("Last training loss", _last(runs, "loss"), wording.significant),
        _result("Last validation loss", _last(runs, "val_loss"), wording.significant),
        _result("Training time", [run.seconds for run in runs], wording.duration, better=min),
        _result("Training images per second", [run.images_per_second for run in runs], wording.significant, better=max),
        Result(label="Trained on", texts=[run.device or wording.ABSENT for run in runs], best=[False] * len(runs)),
        *(
            _result(label, _measured(runs, key), lambda value, key=key: wording.quantity(value, key), better=min)  # type: ignore[misc]
            for key, label in wording.LABELS.items()
        ),
    ]
    return [row for row in rows if set(row.texts) != {wording.ABSENT}]


def _figures(runs: Sequence[Run]) -> Iterator[Result]:
    """Return the rows of all figures of the runs' tasks."""
    for figure in dict.fromkeys(figure for run in runs for figure in find_task(run.task).figures):
        for split, title in (("val", "Validation"), ("test", "Test")):
            values = [run.figures.get(f"{split}_{figure.key}") for run in runs]
            form = wording.percent if figure.share else wording.significant
            yield _result(f"{title} {figure.title}", values, form, better=min if figure.less_is_better else max)


def _result(
    label: str,
    values: Sequence[float | None],
    form: Callable[[Any], str],
    *,
    better: Callable[[list[float]], float] | None = None,
) -> Result:
    known = [value for value in values if value is not None]
    best = better(known) if better and len(set(known)) > 1 else None
    flags = [best is not None and value == best for value in values]
    return Result(label=label, texts=[form(value) for value in values], best=flags)


def _measured(runs: Sequence[Run], key: str) -> list[float | None]:
    return [run.measured.get(key) for run in runs]


def _last(runs: Sequence[Run], key: str) -> list[float | None]:
    return [finite(run.history[-1].get(key)) if run.history else None for run in runs]


def _settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    flat = [flatten(run.settings) | flatten(run.recipe) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    return {key: [_text(one[key]) if key in one else wording.ABSENT for one in flat] for key in keys}


def _alike(runs: Sequence[Run]) -> dict[str, str]:
    return {key: texts[0] for key, texts in _settings(runs).items() if len(set(texts)) == 1}


def _text(value: Any) -> str:
    """Return the value of a setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)


def _legend_entry(run: Run, name: str, index: int) -> dict[str, Any]:
    colour, dashes = look(index)
    state = "running" if run.state == "running" else run.state
    epochs = f"{run.epochs} of {run.planned_epochs}" if run.planned_epochs else str(run.epochs)
    return {
        "name": name,
        "folder": str(run.folder),
        "network": run.title,
        "state": state if run.state == "finished" else f"{state}, {epochs} epochs",
        "kind": {"finished": "kept", "budget missed": "missed"}.get(run.state, "open"),
        "when": run.when,
        "colour": f"var(--blue, {BLUE})" if colour == BLUE else colour,  # as in the plots
        "dashes": " ".join(f"{2 * dash:g}" for dash in dashes),
        "problems": run.problems,
    }


def _sentence(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return which run has the best figure on the validation images; runs must not be chosen by their test images."""
    figures = {find_task(run.task).figure for run in runs}
    scores = {name: run.val_figure for name, run in zip(names, runs, strict=True) if run.val_figure is not None}
    if not scores or len(figures) > 1:
        return f"{len(runs)} runs" if len(runs) > 1 else names[0]
    (figure,) = figures
    best = max(scores.values(), key=figure.better)
    first = [name for name, score in scores.items() if score == best]
    value = wording.percent(best) if figure.share else wording.significant(best)
    if len(runs) == 1:
        return f"{names[0]}: {figure.title} {value} on the validation images."
    verb = "have" if len(first) > 1 else "has"
    return f"{' and '.join(first)} {verb} the best {figure.title} on the validation images: {value}."
