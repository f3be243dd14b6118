"""JSON of a run as far as it can be read: files may be damaged, half written or of another version."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnet.system.files import MAX_JSON_BYTES, read_bytes, read_json
from effnet.system.text import reason_of

_HUGE = 1e300


def load(path: Path, problems: list[str]) -> Mapping[str, Any] | None:
    """Return the object in a JSON file; None if there is none, with a problem if it is damaged."""
    try:
        data = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {reason_of(error)}")
        return None
    if not isinstance(data, dict):
        problems.append(f"{path.name} must hold an object, but holds a {type(data).__name__}")
        return None
    return data


def epochs_of(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the epochs that can be read; the last line of a killed or live run may be half a line."""
    try:
        lines = read_bytes(path, limit_bytes=MAX_JSON_BYTES).decode("utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {reason_of(error)}")
        return ()
    rows: list[Mapping[str, Any]] = []
    bad = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append(str(number))
    if bad:
        problems.append(f"{path.name} has no epoch in line {', '.join(bad)}")
    return tuple(rows)


def rows(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the objects of a list, none for anything else."""
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def at(data: Any, *keys: Any) -> Any:
    """Return the value at the end of a path through nested data, or None if the path ends before."""
    for key in keys:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and 0 <= key < len(data):
            data = data[key]
        else:
            return None
    return data


def finite(value: Any) -> float | None:
    """Return a finite number unchanged, and None for anything else."""
    # Compared, because math.isfinite cannot take an integer of a thousand digits.
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
    return value if good else None
