"""The cells of a run in the tables of `runs list` and `runs compare`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from effnet.cli.console import print_text
from effnet.system.text import both

if TYPE_CHECKING:
    from effnet.report.runs.read import Run

_ABSENT = "-"


def state(run: "Run") -> str:
    """Return the state of a run, with a question mark if it may have ended."""
    return "running?" if run.state == "running" else run.state


def epochs(run: "Run") -> str:
    """Return the number of epochs, of those that were planned."""
    return str(run.epochs) if run.planned_epochs is None else f"{run.epochs}/{run.planned_epochs}"


def figures(run: "Run") -> tuple[str, str, str, str]:
    """Return the figures of a run's task on the validation and the test images, its speed and its time."""
    val, test = (_figure(run, split) for split in ("val", "test"))
    speed = _ABSENT if run.images_per_second is None else f"{run.images_per_second:.0f}"
    return val, test, speed, _ABSENT if run.seconds is None else _time(run.seconds)


def _figure(run: "Run", split: str) -> str:
    from effnet.tasks.registry import find_task

    task = find_task(run.task)
    value, *balanced = (run.figures.get(f"{split}_{figure.key}") for figure in task.figures)
    if value is None:
        return _ABSENT
    return both(value, balanced[0]) if balanced else task.figure.shown(value)


def _time(seconds: float) -> str:
    from effnet.report.text import duration

    return duration(seconds).replace("\xa0", " ")


def print_problems(found: Sequence["Run"]) -> None:
    """Print what could not be read of the runs."""
    for run in found:
        for problem in run.problems:
            print_text(f"{run.folder}: {problem}")
