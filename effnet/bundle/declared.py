"""Arrays as a file declares them: limits checked before anything is read, and decoding of their bytes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from effnet.errors import WeightsError

MAX_BYTES = 4 * 10**9
"""The largest EfficientNet that was ever published, L2, has 1.9e9 bytes of weights in fp32."""

MAX_GROWTH = 16
"""Maximum ratio of array bytes to file bytes: numbers hardly compress, and tensors seldom share storage."""

_MAX_DIMENSIONS = 32
# Number types by their safetensors names, with the numpy type that reads their bytes.
KINDS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E5M2": "u1", "F8_E4M3": "u1", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One array as declared by a file, not yet verified; `itemsize` is the size of one number in the file, in bytes."""

    name: str
    shape: tuple[int, ...]
    itemsize: int

    @property
    def size_bytes(self) -> int:
        """Bytes of its numbers as stored."""
        return math.prod(self.shape) * self.itemsize

    @property
    def size_read(self) -> int:
        """Bytes after reading: floating-point numbers become float32."""
        return math.prod(self.shape) * max(4, self.itemsize)


def check_declared(arrays: Iterable[Declared], *, file_bytes: int, where: object) -> None:
    """Raise WeightsError if arrays declare more bytes than a file of `file_bytes` bytes can contain.

    Call it before any of them is read: a file of 2 KB can declare 30 GB.
    """
    wanted = taken = 0
    for array in arrays:
        if len(array.shape) > _MAX_DIMENSIONS or any(not 0 <= size < 2**48 for size in array.shape):
            raise WeightsError(f"{where}: {array.name} must have a shape; got {str(array.shape)[:80]}; get it again")
        wanted, taken = wanted + array.size_bytes, taken + array.size_read
        if wanted > MAX_GROWTH * file_bytes:
            raise WeightsError(
                f"{where} must hold the numbers that it declares; its arrays up to {array.name} need {wanted:,} "
                f"bytes, and the file has {file_bytes:,}; get it again, or save the weights again"
            )
        if taken > MAX_BYTES:
            raise WeightsError(
                f"{where} must hold at most {MAX_BYTES:,} bytes of weights, twice the largest EfficientNet's; its "
                f"arrays up to {array.name} take {taken:,}; save the weights alone"
            )


def decode(numbers: np.ndarray, kind: str) -> np.ndarray:
    """Decode numbers of one of KINDS; bfloat16 and 8-bit floating-point numbers convert to float32 exactly.

    Source of the 8-bit kinds: Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433, table 1.
    """
    if kind == "BF16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    if kind == "F8_E5M2":  # the upper half of a 16-bit number
        return (numbers.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    return _E4M3[numbers] if kind == "F8_E4M3" else numbers


def to_32_bit(array: np.ndarray) -> np.ndarray:
    """Convert floating-point numbers to float32, others stay; numbers too large for float32 become infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _e4m3_values() -> np.ndarray:
    """Return the 256 numbers of 4 exponent and 3 mantissa bits: no infinities, NaN if all seven bits are set."""
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    sizes = np.where(exponent, np.ldexp(1 + mantissa / 8, exponent - 7), np.ldexp(mantissa / 8, -6))
    values = np.where(bits & 128, -sizes, sizes)
    values[bits & 127 == 127] = np.nan
    return values.astype(np.float32)


_E4M3 = _e4m3_values()
