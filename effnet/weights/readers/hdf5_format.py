"""HDF5 as h5py writes it for Keras, read without HDF5's own library.

That library follows references in a file to any other file of this machine (external storage, virtual data sets,
external links), allocates the memory that a data set declares, and hangs on some damaged files. This module reads only
the small part that Keras needs: old-style groups, and floating-point numbers stored contiguously.
Source: HDF5 File Format Specification, version 3.0, by The HDF Group.
"""

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np

from effnet.errors import WeightsError

MAGIC = b"\x89HDF\r\n\x1a\n"

_UNDEFINED = 2**64 - 1
_MAX_PIECE, _MAX_NAME, _MAX_DEPTH = 2**20, 1024, 8
_MAX_COST, _COST_A_READ = 2**28, 256  # limit of metadata to read; L2's file needs a hundredth
# Kinds of messages in the header of an object.
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 1, 2, 3, 6, 7, 8, 11
_ATTRIBUTE, _CONTINUATION, _TABLE = 12, 16, 17
_SHARED = 2  # flag: the message is stored elsewhere
_FLOAT, _STRING, _VARIABLE = 1, 3, 9
_COMPACT, _CONTIGUOUS = 0, 1
_SOFT_LINK = 2
# IEEE numbers by precision, place and size of exponent and mantissa, and bias.
_FLOATS = {(16, 10, 5, 0, 10, 15): "f2", (32, 23, 8, 0, 23, 127): "f4", (64, 52, 11, 0, 52, 1023): "f8"}


class _Message(NamedTuple):
    kind: int
    flags: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group: the offsets of its members' headers by name, and its own attribute `name`, empty if absent."""

    members: dict[str, int]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Contiguous floating-point numbers: `inside` the header itself, or at offset `place` of the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    place: int
    size_bytes: int
    inside: bytes


@dataclass(slots=True)
class Hdf5File:
    """An open file.

    Its methods raise ValueError, struct.error or IndexError if it is damaged, WeightsError if it is not HDF5 as Keras
    writes it.
    """

    file: BinaryIO
    where: object
    root: int = 0
    _size: int = 0
    _cost: int = 0
    _heaps: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._size = self.file.seek(0, os.SEEK_END)
        start = self._read(0, 72)
        if start[8] != 0:
            raise self._not_keras("the file", "is of a newer kind")
        if start[13:15] != b"\x08\x08":
            raise ValueError("its offsets have an unknown size")
        base, _, end, _, _, self.root = struct.unpack("<6Q", start[24:72])
        if base or end > self._size:
            raise ValueError("it ends too early")

    def _not_keras(self, what: str, why: str) -> WeightsError:
        return WeightsError(f"{self.where} must be HDF5 as Keras writes it; {what} {why}; save it with Keras again")

    def _read(self, place: int, size: int) -> bytes:
        self._cost += _COST_A_READ + size
        if size > _MAX_PIECE or self._cost > _MAX_COST:
            raise ValueError("it has more metadata than weights need")
        if place + size > self._size:
            raise ValueError("it ends too early")
        self.file.seek(place)
        return self.file.read(size)

    def open(self, place: int, *, path: str) -> Group | Dataset | None:
        """Return the object of the header at `place`: a group, floating-point numbers, or None for anything else."""
        messages = list(self._messages(place))
        kinds = {message.kind for message in messages}
        if kinds & {_LINK, _LINK_INFO}:
            raise self._not_keras(path, "is a group that can link to other files")
        if _TABLE in kinds:
            return Group(members=self._members(messages, path), name=self._name(messages))
        return self._dataset(messages, kinds, path) if _LAYOUT in kinds else None

    def _messages(self, place: int) -> Iterator[_Message]:
        version, _, count, _, size = struct.unpack("<BBHII", self._read(place, 12))
        if version != 1:
            raise ValueError("an object in it has no header, or one of a newer kind")
        blocks = [(place + 16, size)]
        while blocks and count:
            block, at = self._read(*blocks.pop(0)), 0
            while at + 8 <= len(block) and count:
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                data = block[at + 8 : at + 8 + length]
                if len(data) < length:
                    raise ValueError("a header in it is cut off")
                at, count = at + 8 + length, count - 1
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", data))
                else:
                    yield _Message(kind, flags, data)

    def _members(self, messages: list[_Message], path: str) -> dict[str, int]:
        tree, heap = struct.unpack_from("<QQ", _only(messages, _TABLE))
        signature, size, _, start = struct.unpack("<4s4xQQQ", self._read(heap, 32))
        if signature != b"HEAP":
            raise ValueError("a group in it has no names")
        names, found = self._read(start, size), {}
        for entries in self._tables(tree, depth=0):
            for at in range(8, len(entries) - 39, 40):
                offset, header, cached = struct.unpack_from("<QQI", entries, at)
                end = names.find(b"\0", offset, offset + _MAX_NAME)
                if end < 0:
                    raise ValueError("a name in it is too long, or missing")
                name = names[offset:end].decode()
                if cached == _SOFT_LINK or header == _UNDEFINED:
                    raise self._not_keras(f"{path}/{name}".lstrip("/"), "is a link")
                found[name] = header
        return found

    def _tables(self, place: int, *, depth: int) -> Iterator[bytes]:
        """Yield the tables of members below a node of a group's tree."""
        start = self._read(place, 8)
        if start[:4] == b"SNOD":
            yield self._read(place, 8 + 40 * int.from_bytes(start[6:8], "little"))
            return
        if start[:5] != b"TREE\0" or depth == _MAX_DEPTH:
            raise ValueError("a group in it has no members, or they form a cycle")
        node = self._read(place, 32 + 16 * int.from_bytes(start[6:8], "little"))
        for at in range(32, len(node), 16):
            yield from self._tables(int.from_bytes(node[at : at + 8], "little"), depth=depth + 1)

    def _dataset(self, messages: list[_Message], kinds: set[int], path: str) -> Dataset | None:
        dtype = _float_type(_only(messages, _TYPE))
        if dtype is None:
            return None
        if _EXTERNAL in kinds:
            raise self._not_keras(path, "has its numbers in another file")
        layout = _only(messages, _LAYOUT)
        if _FILTERS in kinds or layout[0] not in (3, 4) or layout[1] not in (_COMPACT, _CONTIGUOUS):
            raise self._not_keras(path, "has its numbers compressed, in chunks or in other files")
        shape = _shape(_only(messages, _SPACE))
        if layout[1] == _COMPACT:
            (size,) = struct.unpack_from("<H", layout, 2)
            place, inside = 0, layout[4 : 4 + size]
        else:
            (place, size), inside = struct.unpack_from("<QQ", layout, 2), b""
            if size and place + size > self._size:  # including undefined offsets
                raise self._not_keras(path, "has numbers outside the file")
        return Dataset(shape=shape, dtype=dtype, place=place, size_bytes=size, inside=inside)

    def numbers(self, dataset: Dataset) -> np.ndarray:
        """Return the numbers of a data set whose shape was checked."""
        if math.prod(dataset.shape) * dataset.dtype.itemsize != dataset.size_bytes:
            raise ValueError("the shape of an array in it does not fit its size")
        array = np.empty(dataset.shape, dataset.dtype)
        target = array.reshape(-1).view(np.uint8)
        if dataset.inside:
            target[:] = np.frombuffer(dataset.inside, np.uint8)
        elif array.size:
            self.file.seek(dataset.place)
            if self.file.readinto(target) != array.nbytes:  # type: ignore[attr-defined]
                raise ValueError("it ends too early")
        return array

    def _name(self, messages: list[_Message]) -> str:
        """Return the attribute `name` if it is one short text, else an empty text."""
        for message in messages:
            if message.kind == _ATTRIBUTE and not message.flags & _SHARED:
                name, kind, space, value = _attribute(message.data)
                if name == b"name" and _shape(space) == ():
                    return self._text(kind, value)[:_MAX_NAME].decode("utf-8", "replace")
        return ""

    def _text(self, kind: bytes, value: bytes) -> bytes:
        if kind[0] & 15 == _STRING:
            return value[: int.from_bytes(kind[4:8], "little")].rstrip(b"\0 ")
        if kind[0] & 15 == _VARIABLE and kind[1] & 15 == 1:
            length, heap, index = struct.unpack_from("<IQI", value)
            return self._global_heap(heap).get(index, b"")[:length]
        return b""

    def _global_heap(self, place: int) -> dict[int, bytes]:
        """Return the objects of a collection, which is read once."""
        if place not in self._heaps:
            signature, size = struct.unpack("<4s4xQ", self._read(place, 16))
            if signature != b"GCOL":
                raise ValueError("a text in it is missing")
            data, at, found = self._read(place, size), 16, {}
            while at + 16 <= len(data):
                index, _, length = struct.unpack_from("<HH4xQ", data, at)
                if index == 0:
                    break
                found[index] = data[at + 16 : at + 16 + min(length, _MAX_NAME)]
                at += 16 + -(-length // 8) * 8
            self._heaps[place] = found
        return self._heaps[place]


def _only(messages: list[_Message], kind: int) -> bytes:
    found = [message for message in messages if message.kind == kind]
    if len(found) != 1 or found[0].flags & _SHARED:
        raise ValueError("an object in it has no description, several, or one elsewhere")
    return found[0].data


def _shape(space: bytes) -> tuple[int, ...]:
    version, rank = space[0], space[1]
    if version not in (1, 2) or (version == 2 and space[3] > 1):
        raise ValueError("an array in it has no shape")
    return struct.unpack_from(f"<{rank}Q", space, 8 if version == 1 else 4)


def _float_type(kind: bytes) -> np.dtype | None:
    """Return the numpy type of IEEE numbers, None for other types."""
    if kind[0] & 15 != _FLOAT:
        return None
    offset, precision, *places, bias = struct.unpack_from("<HH4BI", kind, 8)
    name = _FLOATS.get((precision, *places, bias))
    if name is None or offset or kind[1] & 0x40 or int.from_bytes(kind[4:8], "little") * 8 != precision:
        raise ValueError("the numbers of an array in it are of an unknown kind")
    return np.dtype((">" if kind[1] & 1 else "<") + name)


def _attribute(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the name, type, shape and value of an attribute, all as stored."""
    version, _, *sizes = struct.unpack_from("<BBHHH", data)
    at, parts = 9 if version == 3 else 8, []
    for size in sizes:
        parts.append(data[at : at + size])
        at += -(-size // 8) * 8 if version == 1 else size
    name, kind, space = parts
    return name.rstrip(b"\0"), kind, space, data[at:]
