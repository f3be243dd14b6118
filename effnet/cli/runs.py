"""runs and compare: results of training, without torch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.console import print_json, print_table, print_text
from effnet.cli.networks import Format, Output
from effnet.system.text import both

if TYPE_CHECKING:
    from effnet.report.runs import Run

_ABSENT = "-"


def runs(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder to search for runs of fit and train, with its subfolders."),
    ] = Path(),
    output: Format = Output.table,
) -> None:
    """List runs with their results, the newest first."""
    from effnet.report.runs import find_runs

    found = find_runs(folder, now=time.time())
    if output is Output.json:
        print_json([run.to_row() for run in found])
        return
    if not found:
        print_text(f"No runs in or below {folder}.")
        return
    columns = ("run", "data", "network", "when (UTC)", "state", "epochs", "val", "test", "images/s", "time")
    rows = [
        (run.folder, run.data, run.title, run.when[:16].replace("T", " "), _state(run), _epochs(run), *_figures(run))
        for run in found
    ]
    print_table(columns, rows, left=("run", "data", "network", "when (UTC)", "state"))
    _print_problems(found)


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Output folders of fit or train, or attempts in them.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")] = Path("compare.html"),
) -> None:
    """Write a page that compares runs: results, recipes, curves."""
    from effnet.report.compare import difference, short_names, write_comparison
    from effnet.report.runs import read_run

    now = time.time()
    given = {folder.absolute(): folder for folder in folders}  # each once: a glob may repeat some
    found = [read_run(folder, now=now) for folder in given.values()]
    write_comparison(found, out)
    names = short_names([run.folder for run in found])
    columns = ("run", "network", "state", "epochs", "val", "test", "images/s", "time")
    rows = [
        (name, run.title, _state(run), _epochs(run), *_figures(run)) for name, run in zip(names, found, strict=True)
    ]
    print_table(columns, rows, left=("run", "network", "state"))
    differing = difference(found)
    if differing:
        print_table(
            ("what differs", *names), [(key, *texts) for key, texts in differing.items()], left=("what differs",)
        )
    _print_problems(found)
    print_text(f"Page: {out}")


def _state(run: "Run") -> str:
    return "running?" if run.state == "running" else run.state


def _epochs(run: "Run") -> str:
    return str(run.epochs) if run.planned_epochs is None else f"{run.epochs}/{run.planned_epochs}"


def _figures(run: "Run") -> tuple[str, str, str, str]:
    pairs = ((run.val_accuracy, run.val_balanced_accuracy), (run.test_accuracy, run.test_balanced_accuracy))
    val, test = (_ABSENT if found is None else both(found, balanced) for found, balanced in pairs)
    speed = _ABSENT if run.images_per_second is None else f"{run.images_per_second:.0f}"
    return val, test, speed, _ABSENT if run.seconds is None else _time(run.seconds)


def _time(seconds: float) -> str:
    from effnet.report.text import duration

    return duration(seconds).replace("\xa0", " ")


def _print_problems(found: Sequence["Run"]) -> None:
    for run in found:
        for problem in run.problems:
            print_text(f"{run.folder}: {problem}")
