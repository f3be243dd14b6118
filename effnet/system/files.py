"""Read untrusted files only if they are regular and of limited size; write files atomically."""

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON_BYTES = 32 * 10**6
"""No JSON file that effnet writes comes near this size."""

_MAX_INTEGER = 2**63 - 1
# Recipes, networks and reports have fewer than ten levels.
_MAX_DEPTH = 100


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; raise OSError for a pipe, a device or a folder instead of waiting forever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], *, limit_bytes: int) -> bytes:
    """Return the content of a regular file; raise OSError if it is larger than `limit_bytes`."""
    with open_regular(path) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"it must have at most {limit_bytes:,} bytes; it has more", os.fspath(path))
    return data


def read_json(path: str | os.PathLike[str], *, limit_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value in a JSON file; raise OSError if it cannot be read, ValueError as `parse_json` does."""
    return parse_json(read_bytes(path, limit_bytes=limit_bytes))


def parse_json(text: str | bytes) -> Any:
    """Return the value of an untrusted JSON text.

    Raises ValueError, with a reason on one line, for damaged text, for nesting that is too deep, for NaN and infinity,
    and for integers of more than 64 bits, which would cause a traceback later.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number)
        _check_depth(value)
        return value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it must be UTF-8 text; byte {error.start:,} is not") from error


def _check_depth(value: Any) -> None:
    """Raise ValueError for nesting that recursive code could not process."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _refuse_constant(text: str) -> float:
    raise ValueError(f"it must hold finite numbers; got {text}")


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(value := int(digits)) > _MAX_INTEGER:
        raise ValueError(f"it must hold whole numbers of at most 64 bits; got {digits[:20]}... ({len(digits)} digits)")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it must hold finite numbers; got {text[:40]}")
    return value


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Set the file name of an OSError that has none, such as that of a full disk, to `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def written_whole(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it replaces `path` if the block succeeds, else it is removed.

    The data are flushed to disk before the rename, unless the file is temporary and not `durable`. An OSError that
    names no file, or the temporary one, names `path`. Only one process at a time may write to `path`.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        yield beside
        if durable:
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        named = [os.fspath(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
        if error.errno is not None and (not named or os.fspath(beside) in named):  # a copy names its source first
            error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        beside.unlink(missing_ok=True)
