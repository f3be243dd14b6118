"""The recipe that a user asked for, if any, and what of it was changed on the way."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.errors import InputError
from effnet.fitting.state import RECIPE
from effnet.recipes.choose import read_recipe
from effnet.training.recipe import Recipe
from effnet.training.recipe_file import with_values

BALANCE = "balance.method"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A `recipe` with its `settings` in it, under the `name` that it was asked for; None where effnet is to choose.

    `settings` are fields by their dotted names; they change what effnet chooses, too.
    """

    name: str = ""
    recipe: Recipe | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def complete(self, chosen: Recipe, *, epochs: int, seed: int) -> Recipe:
        """Return the recipe to train with; `chosen` is what it would be had nobody asked."""
        values = {**self.settings, "train.epochs": epochs, "train.seed": seed}
        return with_values(self.recipe or chosen, values)

    def value(self, dotted: str) -> Any:
        """Return what was asked for a field, None where it is left to effnet."""
        if self.recipe is None:
            return self.settings.get(dotted)
        return _flat(self.recipe.to_dict())[dotted]

    @property
    def options(self) -> dict[str, Any]:
        """What a resumed fit must repeat: every field, so that it can say which one differs."""
        fields = _flat(self.recipe.to_dict(), "recipe.") if self.recipe else {}
        name = self.name or (self.recipe.name if self.recipe else None)
        return {"recipe": name, "settings": dict(self.settings) or None} | fields


def ask(recipe: Recipe | str | os.PathLike[str] | None, settings: Mapping[str, Any] | None, *, spec: ArchSpec) -> Asked:
    """Return what was asked, read and checked; raises InputError where it is no recipe."""
    settings = dict(settings or {})
    if recipe is None:
        return ask_settings(settings)
    named = not isinstance(recipe, Recipe)
    found = read_recipe(recipe, spec) if named else recipe
    return Asked(name=os.fspath(recipe) if named else "", recipe=with_values(found, settings), settings=settings)


def ask_settings(settings: Mapping[str, Any] | None) -> Asked:
    """Return what was asked of the recipe that effnet chooses, checked; raises InputError for what is no field."""
    settings = dict(settings or {})
    with_values(Recipe(), settings)
    return Asked(settings=settings)


def with_balance(settings: Mapping[str, Any] | None, balance: str | None) -> dict[str, Any]:
    """Return the settings with `balance`, where given, in its field; raises InputError where they ask for another."""
    settings = dict(settings or {})
    if balance is None:
        return settings
    if settings.get(BALANCE, balance) != balance:
        raise InputError(
            f"--balance {balance} and --set {BALANCE}={settings[BALANCE]} contradict each other; give one of them"
        )
    return settings | {BALANCE: balance}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in data.items():
        fields |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return fields


def command_words(asked: Asked, *, run: Path) -> list[str]:
    """Return the words of a command line that ask for the same; `run` is the folder that keeps the recipe."""
    if asked.recipe is not None and not asked.name:
        return ["--recipe", str(run / RECIPE)]
    words = ["--recipe", asked.name] if asked.name else []
    for dotted, value in asked.settings.items():
        words += ["--set", f"{dotted}={json.dumps(value, ensure_ascii=False)}"]
    return words
