"""Frozen dataclasses as JSON and back, for files that people and programs read."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from effnet.errors import nearest, shown

OPTIONAL = {"optional": True}
"""Metadata of a field that a file lacks if its value is the default."""

FLAT = {"flat": True}
"""Metadata of a mapping, at most one of a class, whose items a file holds among the fields of its object."""


def to_data(value: Any) -> Any:
    """Return dataclasses, arrays, paths and containers as data that strict JSON and UTF-8 can hold.

    There is no NaN, infinity, numpy or lone surrogate in it: numbers that are not finite become None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        items = ((field, getattr(value, field.name)) for field in fields(value))
        parts = [_to_part(field, item) for field, item in items if not _is_left_out(field, item)]
        return {name: item for part in parts for name, item in part.items()}
    if hasattr(value, "tolist"):  # an array, or a number of numpy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {to_data(str(key)): to_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_data(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | Path):
        # The path of a file whose name is not valid UTF-8 holds lone surrogates.
        return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _to_part(field: Field[Any], item: Any) -> dict[str, Any]:
    data = to_data(item)
    return data if field.metadata.get("flat") else {field.name: data}


def _is_left_out(field: Field[Any], item: Any) -> bool:
    return bool(field.metadata.get("optional")) and item == field.default


def from_data(kind: Any, data: Any, *, where: str) -> Any:
    """Return the value of type `kind` that `to_data` wrote; null for a float is NaN.

    `where` names the value in an error. Raises ValueError for a value of another type, and for a field that is unknown
    or missing.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, UnionType):
        return _from_union(inner, data, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _from_object(kind, data, where)
    if origin is Literal:
        return _must(data in inner, data, f"one of {', '.join(map(str, inner))}", where)
    if origin is tuple:
        return _from_list(inner, data, where)
    if origin is not None and issubclass(origin, Mapping):
        _must(isinstance(data, Mapping), data, "an object", where)
        return {key: from_data(inner[1], item, where=f"{where}.{key}") for key, item in data.items()}
    if kind is float:
        good = isinstance(data, int | float) and not isinstance(data, bool)
        return math.nan if data is None else _must(good, data, "a number", where)
    names = {int: "a whole number", str: "a text", bool: "true or false"}
    if kind not in names:
        raise TypeError(f"{where} must have a type that a file can hold; got {kind}")
    return _must(type(data) is kind, data, names[kind], where)


def _must(good: bool, value: Any, wanted: str, where: str) -> Any:
    """Return the value if it is good; raise ValueError otherwise."""
    if not good:
        raise ValueError(f"{where} must be {wanted}; got {shown(value)}")
    return value


def _from_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            return from_data(kind, data, where=where)
        except ValueError:
            continue
    return from_data(others[-1], data, where=where)


def _from_list(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    _must(isinstance(data, list | tuple), data, "a list", where)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(data)
    _must(len(data) == len(kinds), data, f"a list of {len(kinds)}", where)
    return tuple(
        from_data(kind, item, where=f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _from_object(kind: type, data: Any, where: str) -> Any:
    _must(isinstance(data, Mapping), data, "an object", where)
    known, required, flat = _fields(kind)
    if flat:
        own = {name: item for name, item in data.items() if name in known and name != flat}
        data = own | {flat: {name: item for name, item in data.items() if name not in own}}
    for name in data:
        if name not in known:
            raise ValueError(f"{where} has no field {shown(name)}{nearest(str(name), list(known))}")
    if missing := [name for name in required if name not in data]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(**{name: from_data(known[name], item, where=f"{where}.{name}") for name, item in data.items()})


@lru_cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...], str]:
    """Return the types of a dataclass's fields by their names, the names of those without a default, and the flat one.

    The last is empty if no field is flat.
    """
    hints = get_type_hints(kind)
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    flat = [field.name for field in fields(kind) if field.metadata.get("flat")]
    return {field.name: hints[field.name] for field in fields(kind)}, tuple(missing), "".join(flat)
