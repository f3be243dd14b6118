"""Reads .npy files as images, piece by piece."""

import math
from typing import BinaryIO

import numpy as np

from effnet.data.limits import MAX_PIXELS, HeaderStream, check_pixels
from effnet.errors import ImageError

_MAGIC = b"\x93NUMPY"
# Numpy itself refuses headers of more than 10,000 characters, but only once it has read them.
_HEADER_BYTES = 2**17
_PIECE_BYTES = 2**22

Shape = tuple[int, int, int]
"""Height, width and channels."""


def is_npy(stream: BinaryIO) -> bool:
    """Returns whether the file begins as .npy files do; it is then at its start again."""
    found = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(0)
    return found


def npy_shape(stream: BinaryIO) -> Shape:
    """Returns the shape that the header says; raises ImageError as `read_npy`."""
    return _read_header(stream)[0]


def read_npy(stream: BinaryIO) -> np.ndarray:
    """Returns uint8 [H, W, C], of 16-bit values the upper byte.

    Raises ImageError for other arrays than uint8 or uint16 [H, W] and [H, W, C], for large ones, and for cut files.
    """
    shape, dtype, is_fortran = _read_header(stream)
    result = np.empty(shape, np.uint8)
    # Fortran's order is that of the transposed array, whose values follow each other in the file.
    flat = result.transpose() if is_fortran else result
    row_values = math.prod(flat.shape[1:])
    together = max(1, _PIECE_BYTES // (row_values * dtype.itemsize))
    for start in range(0, len(flat), together):
        part = flat[start : start + together]
        data = stream.read(part.size * dtype.itemsize)
        if len(data) < part.size * dtype.itemsize:
            raise ValueError("the file is truncated")
        values = np.frombuffer(data, dtype).reshape(part.shape)
        part[...] = values if dtype.itemsize == 1 else values >> 8
    return result


def _read_header(stream: BinaryIO) -> tuple[Shape, np.dtype, bool]:
    header = HeaderStream(stream, limit_bytes=_HEADER_BYTES)
    version = np.lib.format.read_magic(header)
    if version not in ((1, 0), (2, 0)):
        raise ImageError(f".npy must be version 1.0 or 2.0, received {version}")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(header)
    if dtype.kind != "u" or dtype.itemsize > 2 or len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(
            f".npy must hold uint8 or uint16 [height, width] or [height, width, channels], "
            f"received {dtype} {list(shape)}"
        )
    height, width, channels = (*shape, 1)[:3]
    check_pixels(width, height)
    if math.prod(shape) > 4 * MAX_PIXELS:
        raise ImageError(f".npy may hold at most {4 * MAX_PIXELS:,} values, received {list(shape)}")
    return (height, width, channels), dtype, is_fortran
