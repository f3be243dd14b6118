"""recipes: training configurations as data, without torch."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from effnet.cli.console import print_json, print_text


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="Recipe to print with all fields; a .py file is run.")
    ] = None,
    model: Annotated[str, typer.Option(help="Network that the recipe is for.")] = "b0",
) -> None:
    """List the recipes, or print one as JSON, which `effnet train --recipe FILE.json` reads."""
    from effnet.bundle.spec_of import read_spec
    from effnet.training.recipe.read import RECIPES, read_recipe, summary

    if name is not None:
        print_json(read_recipe(name, read_spec(model)).to_dict())
        return
    width = max(len(name) for name in RECIPES)
    for known in RECIPES:
        print_text(f"{known:<{width}}  {summary(known)}")


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parse FIELD=VALUE words; a value is read as JSON if it is JSON, else as text."""
    from effnet.errors import InputError
    from effnet.system.files import parse_json
    from effnet.system.text import brief

    values: dict[str, Any] = {}
    for word in words:
        field, separator, text = word.partition("=")
        if not separator:
            raise InputError(f"--set must be FIELD=VALUE, such as train.lr=0.1; got {brief(word)}")
        try:
            values[field] = parse_json(text)
        except ValueError:
            values[field] = text
    return values
