"""runs list: results of training, without torch."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import print_json, print_table, print_text
from effnet.cli.options import Format, Output
from effnet.cli.runs.rows import epochs, figures, print_problems, state


def list_runs(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder to search for runs of fit and train, with its subfolders."),
    ] = Path(),
    output: Format = Output.table,
) -> None:
    """List runs with their results, the newest first."""
    from effnet.jobs.runs import runs

    found = runs(folder)
    if output is Output.json:
        print_json([run.to_row() for run in found])
        return
    if not found:
        print_text(f"No runs in or below {folder}.")
        return
    columns = ("run", "data", "network", "when (UTC)", "state", "epochs", "val", "test", "images/s", "time")
    rows = [
        (run.folder, run.data, run.title, run.when[:16].replace("T", " "), state(run), epochs(run), *figures(run))
        for run in found
    ]
    print_table(columns, rows, left=("run", "data", "network", "when (UTC)", "state"))
    print_problems(found)
