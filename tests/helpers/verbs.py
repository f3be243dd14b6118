"""The verbs of the command line, those in groups as two words."""

from collections.abc import Callable, Iterator
from typing import Any

from effnet.cli.main import app


def verbs() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each verb's words and function."""
    for command in app.registered_commands:
        yield command.name or command.callback.__name__, command.callback
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            yield f"{group.name} {command.name}", command.callback
