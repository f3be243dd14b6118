"""runs compare: a page that compares runs, without torch."""

import time
from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import print_table, print_text
from effnet.cli.runs.rows import epochs, figures, print_problems, state


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
    rows = [(name, run.title, state(run), epochs(run), *figures(run)) for name, run in zip(names, found, strict=True)]
    print_table(columns, rows, left=("run", "network", "state"))
    differing = difference(found)
    if differing:
        print_table(
            ("what differs", *names), [(key, *texts) for key, texts in differing.items()], left=("what differs",)
        )
    print_problems(found)
    print_text(f"Page: {out}")
