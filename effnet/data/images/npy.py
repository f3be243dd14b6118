"""Read .npy files as images, piece by piece."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from effnet.data.images.limits import MAX_PIXELS, HeaderStream, check_pixels
from effnet.data.view.value_range import ValueRange, check_ranges, to_uint8
from effnet.errors import ImageError

_MAGIC = b"\x93NUMPY"
# Numpy itself refuses headers of more than 10,000 characters, but only after reading them.
_HEADER_BYTES = 2**17
_PIECE_BYTES = 2**22
# numpy parses a header with Python's own parser, which before 3.11.8 and 3.12.2 fails now and then if another thread
# parses at the same time, also one that imports a module (CPython gh-106905): the image would count as damaged.
_ONE_PARSER, _TRIES = threading.Lock(), 5


def _renew() -> None:
    global _ONE_PARSER
    _ONE_PARSER = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may hold it, which does not exist in the new process
    os.register_at_fork(after_in_child=_renew)

Shape = tuple[int, int, int]
"""Height, width and channels."""


def is_npy(stream: BinaryIO) -> bool:
    """Return whether the file begins like a .npy file; rewind it."""
    found = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(0)
    return found


def npy_header(stream: BinaryIO) -> tuple[Shape, str]:
    """Return the shape and the type of the values from the header; raise ImageError as `read_npy`."""
    shape, dtype, _ = _read_header(stream)
    return shape, dtype.name


def read_npy(stream: BinaryIO, *, value_range: ValueRange | None = None) -> np.ndarray:
    """Return uint8 [H, W, C]; values of more than 8 bits are converted by `to_uint8`.

    Raises ImageError for arrays other than numbers [H, W] and [H, W, C], for too large arrays, and for truncated files.
    """
    shape, dtype, is_fortran = _read_header(stream)
    result = np.empty(shape, np.uint8)
    # Fortran's order is that of the transposed array, whose values follow each other in the file.
    flat = result.transpose() if is_fortran else result
    start = 0
    for values in _parts(stream, flat.shape, dtype):
        part = flat[start : start + len(values)]
        if dtype == np.uint8:
            part[...] = values
        elif is_fortran and value_range is not None and value_range.channels:
            check_ranges(shape[2], value_range)
            for i in range(len(values)):  # a channel each
                part[i] = to_uint8(values[i], dtype.name, value_range.of(start + i))
        else:
            part[...] = to_uint8(values, dtype.name, value_range)
        start += len(values)
    return result


def npy_values(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yield the values of a file as they are stored, [..., channels], in pieces; raise ImageError as `read_npy`.

    An array in Fortran's order is one piece, as its pieces are of one channel each.
    """
    shape, dtype, is_fortran = _read_header(stream)
    if not is_fortran:
        return _parts(stream, shape, dtype)
    return iter([np.concatenate(list(_parts(stream, shape[::-1], dtype))).transpose()])


def _parts(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the array in pieces of rows, in the file's order, of a few megabytes each."""
    row_values = math.prod(shape[1:])
    together = max(1, _PIECE_BYTES // (row_values * dtype.itemsize))
    for start in range(0, shape[0], together):
        rows = min(together, shape[0] - start)
        data = stream.read(rows * row_values * dtype.itemsize)
        if len(data) < rows * row_values * dtype.itemsize:
            raise ValueError("the file is truncated")
        yield np.frombuffer(data, dtype).reshape(rows, *shape[1:])


def _parsed(read: Callable[[Any], Any], header: HeaderStream) -> Any:
    """Return what `read` parses from a header, again if Python's parser fails because another thread parses."""
    start: Any = header.tell()  # type: ignore[operator]
    for _ in range(_TRIES):
        try:
            with _ONE_PARSER:
                return read(header)
        except SystemError:
            header.seek(start)  # type: ignore[operator]
    return read(header)


def _read_header(stream: BinaryIO) -> tuple[Shape, np.dtype, bool]:
    header = HeaderStream(stream, limit_bytes=_HEADER_BYTES)
    version = np.lib.format.read_magic(header)
    if version not in ((1, 0), (2, 0)):
        raise ImageError(f".npy must be version 1.0 or 2.0, received {version}")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = _parsed(read, header)
    usable = dtype.kind in "ui" or (dtype.kind == "f" and dtype.itemsize <= 8)
    if not usable or len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(
            f".npy must hold integers or real numbers [height, width] or [height, width, channels], "
            f"received {dtype} {list(shape)}"
        )
    height, width, channels = (*shape, 1)[:3]
    check_pixels(width, height)
    if math.prod(shape) > 4 * MAX_PIXELS:
        raise ImageError(f".npy may hold at most {4 * MAX_PIXELS:,} values, received {list(shape)}")
    return (height, width, channels), dtype, is_fortran
