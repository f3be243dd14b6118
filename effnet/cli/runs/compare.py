"""runs compare: a page that compares runs, without torch."""

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
    from effnet.jobs import runs

    found = runs.compare(folders, out=out)
    columns = ("run", "network", "state", "epochs", "val", "test", "images/s", "time")
    rows = [
        (name, run.title, state(run), epochs(run), *figures(run))
        for name, run in zip(found.names, found.runs, strict=True)
    ]
    print_table(columns, rows, left=("run", "network", "state"))
    if found.differing:
        print_table(
            ("what differs", *found.names),
            [(key, *texts) for key, texts in found.differing.items()],
            left=("what differs",),
        )
    print_problems(found.runs)
    print_text(f"Page: {found.page}")
