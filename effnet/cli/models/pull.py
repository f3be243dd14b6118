"""models pull: a bundle of published weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.console import make_console, print_text

if TYPE_CHECKING:
    from effnet.weights.download import Progress


def pull(
    name: Annotated[str, typer.Argument(metavar="ID", help="An id of `effnet models list`, or a network's name.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle; effnet-NAME by default.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The published file, if you already have it.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not use the network; fail if the file is not cached.")
    ] = False,
) -> None:
    """Make a bundle of published weights, ready to predict."""
    from effnet.bundle.config import read_config
    from effnet.bundle.names import ONNX
    from effnet.jobs.pull import pull as pull_bundle

    with _download_bar() as progress:
        folder = pull_bundle(name, out=out, file=weights, offline=offline, progress=progress)
    config = read_config(folder)
    published = config.origin.published if config.origin else ""
    print_text(f"{folder} is a bundle of {published or config.arch.name} now.")
    if not published:
        print_text(
            f"No published hash proves that {weights} is the published file: the bundle has neither its name nor its "
            "accuracy."
        )
    if (folder / ONNX).is_file():
        print_text(f"Classify images: effnet predict {folder} IMAGES")


@contextmanager
def _download_bar() -> "Iterator[Progress | None]":
    """Yield a callback that shows the progress of a download, on a terminal only."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, total=total or None, completed=done, visible=True)
