"""TensorFlow's checkpoints read without TensorFlow.

PREFIX.index is a LevelDB table, uncompressed, that maps the name of a variable to a BundleEntryProto: type,
shape, and the position of its bytes in PREFIX.data-SHARD-of-SHARDS. Everything carries a masked CRC-32C.
Source: LevelDB, doc/table_format.md; tensorflow/core/protobuf/tensor_bundle.proto and
tensorflow/core/util/tensor_bundle/tensor_bundle.h.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from effnet.bundle.declared import KINDS, Declared, check_declared, decode
from effnet.errors import WeightsError
from effnet.system.files import open_regular, read_bytes
from effnet.weights.readers.crc32c import masked_crc32c

TABLE_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER, _TRAILER = 48, 5
# DataType in tensorflow/core/framework/types.proto; other types (strings, object graphs) are skipped.
_KINDS = {
    1: "F32", 2: "F64", 3: "I32", 4: "U8", 5: "I16", 6: "I8", 9: "I64", 10: "BOOL", 14: "BF16", 17: "U16", 19: "F16",
    22: "U32", 23: "U64",
}  # fmt: skip
_BIG_ENDIAN = 1
_MAX_INDEX_BYTES = 8 * 10**6  # L2's with averages and optimizer state has a tenth of this
_MAX_KEY_BYTES, _MAX_SHARDS = 4096, 128


class _Entry(NamedTuple):
    """Type, shape and position of one variable."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool

    @property
    def itemsize(self) -> int:
        return np.dtype(KINDS[_KINDS[self.dtype]]).itemsize


def read_bundle(prefix: Path, *, keep: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """Return the numeric variables of the checkpoint PREFIX.index whose name `keep` accepts; bfloat16 as 32-bit.

    Raises WeightsError if a file is missing or damaged, or a variable is stored in slices.
    """
    index = Path(f"{prefix}.index")
    try:
        table = dict(read_table(read_bytes(index, limit_bytes=_MAX_INDEX_BYTES)))
        num_shards = _read_header(table.pop(b"", None))
        entries = {key.decode(): _read_entry(message) for key, message in table.items()}
        wanted = {name: e for name, e in entries.items() if e.dtype in _KINDS and keep(name)}
    except (ValueError, IndexError, TypeError) as error:
        raise WeightsError(f"{index} must be the index of a TensorFlow checkpoint; {error}; get it again") from error
    with ExitStack() as opened:
        files: dict[int, BinaryIO] = {}
        for shard in sorted({entry.shard for entry in wanted.values()}):
            path = _shard(prefix, shard, num_shards)
            if not path.is_file():
                raise WeightsError(f"{index} has its numbers in {path.name}, which is not beside it; get that file too")
            if len(files) == _MAX_SHARDS:
                raise WeightsError(f"{index} must have at most {_MAX_SHARDS} data files; save the checkpoint again")
            files[shard] = opened.enter_context(open_regular(path))
        _check_sizes(wanted, files, index)
        return {
            name: _read_variable(files[entry.shard], entry, what=f"{_shard(prefix, entry.shard, num_shards)}: {name}")
            for name, entry in sorted(wanted.items(), key=lambda item: item[1].shard)
        }


def _shard(prefix: Path, shard: int, num_shards: int) -> Path:
    return Path(f"{prefix}.data-{shard:05d}-of-{num_shards:05d}")


def _check_sizes(wanted: Mapping[str, _Entry], files: Mapping[int, BinaryIO], index: Path) -> None:
    arrays = (Declared(name=name, shape=e.shape, itemsize=e.itemsize) for name, e in wanted.items())
    check_declared(arrays, file_bytes=sum(file.seek(0, os.SEEK_END) for file in files.values()), where=index)


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a LevelDB table in order; raises ValueError if it is damaged or compressed."""
    if len(data) < _FOOTER or not data.endswith(TABLE_MAGIC):
        raise ValueError("its end is missing or of another format")
    footer = data[-_FOOTER:]
    _, at = _read_handle(footer, 0)  # the meta index, which checkpoints do not use
    (offset, size), _ = _read_handle(footer, at)
    read = 0
    for _, handle in _read_block(data, offset, size):
        place, size = _read_handle(handle, 0)[0]
        read += size
        if read > len(data):
            raise ValueError("its blocks overlap")
        yield from _read_block(data, place, size)


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _read_varint(data, at)
    size, at = _read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block, end = data[offset : offset + size], offset + size
    trailer = data[end : end + _TRAILER]
    if len(block) < size or len(trailer) < _TRAILER or size < 4:
        raise ValueError("a block lies beyond its end")
    if masked_crc32c(data[offset : end + 1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("the checksum of a block is wrong")
    if trailer[0]:
        raise ValueError("its blocks are compressed, which TensorFlow never does")
    num_restarts = int.from_bytes(block[-4:], "little")
    at, stop, key = 0, size - 4 - 4 * num_restarts, b""
    while at < stop:
        shared, at = _read_varint(block, at)
        fresh, at = _read_varint(block, at)
        length, at = _read_varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh + length
        if len(key) > _MAX_KEY_BYTES or at > stop:
            raise ValueError("a name in it is too long, or a record is cut off")
        yield key, block[at - length : at]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number in it is too long")


def _read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protocol buffer: their numbers, and integers or bytes."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError("a record in it cannot be decoded")
        length = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            length, at = _read_varint(message, at)
        piece = message[at : at + length]
        if len(piece) < length:
            raise ValueError("a record in it is cut off")
        at += length
        yield tag >> 3, piece if wire == 2 else int.from_bytes(piece, "little")


def _read_header(message: bytes | None) -> int:
    """Return the number of shards from a BundleHeaderProto."""
    if message is None:
        raise ValueError("it has no header")
    fields = dict(_read_fields(message))
    if fields.get(2) == _BIG_ENDIAN:
        raise ValueError("it was written on a big-endian machine")
    return _whole(fields.get(1, 1))


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int) or value >= 2**63:
        raise ValueError("a number in it is negative or no number")
    return value


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a record in it is a number")
    return value


def _read_entry(message: bytes) -> _Entry:
    """Decode a BundleEntryProto; a field that is absent is zero."""
    fields: dict[int, int | bytes] = dict(_read_fields(message))
    shape = []
    for number, dim in _read_fields(_message(fields.get(2, b""))):
        if number == 2:
            shape.append(_whole(dict(_read_fields(_message(dim))).get(1, 0)))
    dtype, shard, offset, size, crc = (_whole(fields.get(number, 0)) for number in (1, 3, 4, 5, 6))
    return _Entry(
        dtype=dtype,
        shape=tuple(shape),
        shard=shard,
        offset=offset,
        size=size,
        crc=crc,
        sliced=7 in fields,
    )


def _read_variable(file: BinaryIO, entry: _Entry, *, what: str) -> np.ndarray:
    if entry.sliced:
        raise WeightsError(f"{what} is stored in slices, which are not read; save the checkpoint without partitions")
    if math.prod(entry.shape) * entry.itemsize != entry.size:
        raise WeightsError(f"{what} must fill its shape {entry.shape}; got {entry.size} bytes; get the file again")
    if entry.offset + entry.size > file.seek(0, os.SEEK_END):
        raise WeightsError(f"{what} lies beyond the end of the file, which is cut off; get it again")
    file.seek(entry.offset)
    data = file.read(entry.size)
    if masked_crc32c(data) != entry.crc:
        raise WeightsError(f"{what} has a wrong checksum, so the file is damaged; get it again")
    kind = _KINDS[entry.dtype]
    return decode(np.frombuffer(data, KINDS[kind]).reshape(entry.shape), kind)
