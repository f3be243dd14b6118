"""watch: answer the frames of cameras and videos, and write an event when a rule holds."""

from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import fail
from effnet.watching.settings import Settings

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Video files, images, folders, numbers of webcams, or addresses such as rtsp://HOST/PATH; or NAME=SOURCE.",
    ),
]


@takes_options(Settings, sources=Sources)
def watch(values: dict[str, Any]) -> None:
    """Watch cameras and videos with a bundle: rules in, events out. It ends with its sources, or at SIGTERM."""
    words = values.pop("sources")
    settings = Settings(**{name: value for name, value in values.items() if name != "procedure"})
    from effnet.watching.run import watch as run
    from effnet.watching.sources.source import read_sources

    # Events may go to standard output, so nothing else does.
    if run(read_sources(words), settings, say=fail, warn=fail):
        raise typer.Exit(2)
