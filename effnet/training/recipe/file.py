"""Recipes as plain data: read from JSON, changed by dotted field names."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from effnet.errors import InputError, nearest
from effnet.system.bounds import is_number
from effnet.system.text import brief
from effnet.training.recipe.schema import Recipe, Stage


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """Return the recipe of `data`; absent fields have their defaults.

    Raises InputError for unknown fields and for values of the wrong type or out of range.
    """
    return _read(Recipe, data, "")


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return `recipe` with fields changed by their dotted names, such as {"train.lr": 0.1}."""
    data = recipe.to_dict()
    for dotted, value in values.items():
        *groups, last = dotted.split(".")
        place: Any = data
        for group in groups:
            place = _inside(place, group, dotted)
        _inside(place, last, dotted, leaf=True)
        place[last] = value
    return recipe_from_dict(data)


def _inside(place: Any, name: str, dotted: str, *, leaf: bool = False) -> Any:
    known = [key for key, value in place.items() if leaf or isinstance(value, dict)]
    if not known:
        raise InputError(f"a recipe has no field {brief(dotted)}: the part before {brief(name)} is a single value")
    if name not in known:
        hint = nearest(name, known)
        raise InputError(f"a recipe has no field {brief(dotted)}; the known fields are {', '.join(known)}{hint}")
    return place[name]


def _read(kind: type, data: Any, where: str) -> Any:
    """Return a dataclass of `kind` from data; `where` names it in errors."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where or 'a recipe'} must be an object with fields; got {brief(data)}")
    hints = typing.get_type_hints(kind)
    unknown = [name for name in data if name not in hints]
    if unknown:
        known = ", ".join(hints)
        dotted = f"{where}.{unknown[0]}" if where else unknown[0]
        hint = nearest(unknown[0], list(hints))
        raise InputError(f"a recipe has no field {brief(dotted)}; the known fields are {known}{hint}")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}".lstrip(".")) for name, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _read(hint, value, where)  # type: ignore[arg-type]
    if hint == tuple[Stage, ...]:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list of stages; got {brief(value)}")
        return tuple(_stage(item, f"{where}[{i}]") for i, item in enumerate(value))
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return _scalar(allowed, value, where)


def _stage(data: Any, where: str) -> Stage:
    """Return one of the stages; errors of its own checks name this stage."""
    try:
        return _read(Stage, data, where)
    except InputError as error:
        raise InputError(str(error).replace("stages.", f"{where}.", 1)) from error


def _scalar(allowed: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return the value if it has an allowed type, an integer also for a float; else raise InputError."""
    if value is None and type(None) in allowed:
        return None
    if float in allowed and type(value) is int and not is_number(value):
        raise InputError(f"{where} must be a number within the range of a float; got {brief(value)}")
    if float in allowed and type(value) in (int, float):
        return float(value)
    if (int in allowed and type(value) is int) or (bool in allowed and type(value) is bool):
        return value
    text = str in allowed or any(typing.get_origin(kind) is typing.Literal for kind in allowed)
    if text and isinstance(value, str):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false"}
    wanted = " or ".join(names.get(kind, "a text") for kind in allowed if kind is not type(None))
    raise InputError(f"{where} must be {wanted}; got {brief(value)}")
