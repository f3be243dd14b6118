"""The recipe and the recipe settings that the user requested, if any."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError
from effnet.training.recipe.file import with_values
from effnet.training.recipe.read import read_recipe
from effnet.training.recipe.schema import Recipe

BALANCE = "balance.method"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A `recipe` with the `settings` applied, and the `name` it was requested by; None if effnet chooses it.

    `settings` are fields by their dotted names; they also override the recipe that effnet chooses.
    """

    name: str = ""
    recipe: Recipe | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def complete(self, chosen: Recipe, *, epochs: int, seed: int) -> Recipe:
        """Return the recipe to train with; `chosen` is the one to use if the user requested none."""
        values = {**self.settings, "train.epochs": epochs, "train.seed": seed}
        return with_values(self.recipe or chosen, values)

    def value(self, dotted: str) -> Any:
        """Return the requested value of a field, None if effnet chooses it."""
        if self.recipe is None:
            return self.settings.get(dotted)
        return _flat(self.recipe.to_dict())[dotted]

    @property
    def options(self) -> dict[str, Any]:
        """The options that a resumed fit must repeat: every field, so that an error can name the one that differs."""
        fields = _flat(self.recipe.to_dict(), "recipe.") if self.recipe else {}
        name = self.name or (self.recipe.name if self.recipe else None)
        return {"recipe": name, "settings": dict(self.settings) or None} | fields


def ask(recipe: Recipe | str | os.PathLike[str] | None, settings: Mapping[str, Any] | None, *, spec: ArchSpec) -> Asked:
    """Return the requested recipe, read and checked; raise InputError if it is no recipe."""
    settings = dict(settings or {})
    if recipe is None:
        return ask_settings(settings)
    if isinstance(recipe, Recipe):
        return Asked(name="", recipe=with_values(recipe, settings), settings=settings)
    found = read_recipe(recipe, spec)
    return Asked(name=os.fspath(recipe), recipe=with_values(found, settings), settings=settings)


def ask_settings(settings: Mapping[str, Any] | None) -> Asked:
    """Return the overrides of the recipe that effnet chooses, checked; raise InputError for an unknown field."""
    settings = dict(settings or {})
    with_values(Recipe(), settings)
    return Asked(settings=settings)


def with_balance(settings: Mapping[str, Any] | None, balance: str | None) -> dict[str, Any]:
    """Return the settings with `balance`, if given, in its field; raise InputError if they contain another value."""
    settings = dict(settings or {})
    if balance is None:
        return settings
    if settings.get(BALANCE, balance) != balance:
        raise InputError(
            f"--set fit.balance={balance} and --set {BALANCE}={settings[BALANCE]} contradict each other; "
            "give one of them"
        )
    return settings | {BALANCE: balance}


def with_recipe(settings: Mapping[str, Any] | None, recipe: Recipe | str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return the settings of a fit, over those of a recipe: its fields that differ from the defaults.

    Everything else fit chooses by data, time and weights. Whether the initial weights count as a result is the
    recipe's as well: a head is no result of a recipe that changes the images. Raises InputError for a recipe of stages,
    or of classes or outputs that only `train` knows.
    """
    settings = dict(settings or {})
    if recipe is None:
        return settings
    found = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, get_spec("b0"))
    if found.stages:
        raise InputError("fit chooses one resolution, and a recipe with stages trains at several: use `effnet train`")
    plain = _flat(Recipe().to_dict())
    given = {name: value for name, value in _flat(found.to_dict()).items() if value != plain[name]}
    for name in ("name", "train.epochs", "train.seed", "stages"):
        given.pop(name, None)
    return {**given, "train.start_counts": found.train.start_counts, **settings}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in data.items():
        fields |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return fields


def settings_words(settings: Mapping[str, Any] | None) -> list[str]:
    """Return the command-line options that set these fields of the recipe."""
    return [
        word
        for dotted, value in (settings or {}).items()
        for word in ("--set", f"{dotted}={json.dumps(value, ensure_ascii=False)}")
    ]
