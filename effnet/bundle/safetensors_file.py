"""Read safetensors files of any number type from one open file.

The package `safetensors` reads by path only, and numpy has neither bfloat16 nor the 8-bit float types.
Source: the format in the README of huggingface/safetensors.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from effnet.bundle.declared import KINDS, Declared, check_declared, decode
from effnet.errors import WeightsError
from effnet.system.files import open_regular, parse_json

MAX_HEADER_BYTES = 10**7
"""Limit of the header; L2's has 200,000 bytes."""

_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One tensor of the header: its numbers are at `begin` to `end`, counted from the header's end."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


def load_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and metadata of a file, as `read_safetensors`; raise OSError for a pipe or a folder."""
    with open_regular(path) as file:
        return read_safetensors(file, where=Path(path))


def read_safetensors(file: BinaryIO, *, where: object) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays by name, and the metadata; bfloat16 and 8-bit floating-point numbers become float32 exactly.

    Raises ValueError, with a reason on one line, if the file is damaged; WeightsError if it holds another kind
    of numbers, or more than effnet reads.
    """
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > file_bytes - 8:
        raise ValueError("its header lies beyond its end")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header must have at most {MAX_HEADER_BYTES:,} bytes; it has {length:,}")
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header must be a JSON object")
    metadata = header.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata must be texts")
    rows = {name: _row(value) for name, value in header.items()}
    check_declared((_declared(name, row, where) for name, row in rows.items()), file_bytes=file_bytes, where=where)
    _check_places(rows, file_bytes - 8 - length)
    return {name: _array(file, row, 8 + length + row.begin) for name, row in rows.items()}, metadata


def _row(value: Any) -> _Row:
    try:
        kind, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or not isinstance(kind, str) or begin > end:
        raise ValueError("a tensor in its header lacks its type, shape or place")
    return _Row(kind=kind, shape=tuple(shape), begin=begin, end=end)


def _declared(name: str, row: _Row, where: object) -> Declared:
    if row.kind not in KINDS:
        raise WeightsError(
            f"{where}: {name} must be an array of numbers; got {row.kind[:20]}, which is not read; save it as float32"
        )
    return Declared(name=name, shape=row.shape, itemsize=np.dtype(KINDS[row.kind]).itemsize)


def _check_places(rows: Mapping[str, _Row], data_bytes: int) -> None:
    """Raise ValueError unless the tensors fill the file without gaps or overlaps."""
    place = 0
    for row in sorted(rows.values(), key=lambda row: (row.begin, row.end)):
        size = Declared(name="", shape=row.shape, itemsize=np.dtype(KINDS[row.kind]).itemsize).size_bytes
        if row.begin != place or row.end != place + size:
            raise ValueError("its tensors must fill it one behind the other")
        place = row.end
    if place != data_bytes:
        raise ValueError(f"its tensors must fill it; they have {place:,} of {data_bytes:,} bytes")


def _array(file: BinaryIO, row: _Row, place: int) -> np.ndarray:
    numbers = np.empty(row.shape, KINDS[row.kind])
    file.seek(place)
    if numbers.size and file.readinto(numbers.reshape(-1).view(np.uint8)) != numbers.nbytes:  # type: ignore[attr-defined]
        raise ValueError("it ends too early")
    return decode(numbers, row.kind)
