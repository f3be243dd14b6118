"""Write plain data as YAML, for people to read: dicts, lists, texts, numbers, true and false."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# What YAML could take for a number, a date, a truth value or syntax is quoted, as JSON, which YAML includes.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return one document in block style."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: Any) -> list[str]:
    found = []
    if isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(value, Mapping | list | tuple) and value:
                deeper = _lines(value)
                found += [f"{_scalar(key)}:", *(f"  {line}" for line in deeper)]
            else:
                found.append(f"{_scalar(key)}: {_scalar(value)}")
        return found
    for value in data:
        first, *rest = _lines(value) if isinstance(value, Mapping) and value else [_scalar(value)]
        found += [f"- {first}", *(f"  {line}" for line in rest)]
    return found


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence | Mapping) and value:
        raise TypeError("lists in lists are not written")
    return json.dumps(value)
