"""serve: answer images over HTTP."""

from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import fail, print_text
from effnet.serving.settings import Settings

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Bundles: FOLDER, NAME=FOLDER or NAME:VERSION=FOLDER.")
]


@takes_options(Settings, models=Models)
def serve(values: dict[str, Any]) -> None:
    """Serve bundles over HTTP: images in, answers out, with readiness, metrics and limits. It ends at SIGTERM."""
    models = values.pop("models")
    settings = Settings(**{name: value for name, value in values.items() if name != "procedure"})
    from effnet.serving.run import serve as run
    from effnet.serving.version import read_sources

    run(read_sources(models), settings, say=lambda text: print_text(text, flush=True), warn=fail)
