"""The checksum of TensorFlow's files, fast enough for large arrays without a compiled helper.

A checksum is linear over GF(2): the data is cut into equal rows whose checksums numpy computes in parallel, and two
neighbours are joined by advancing the left one over as many zero bytes as the right one has.
Source: RFC 3720, appendix B.4 (the polynomial); LevelDB, util/crc32c.h (the mask).
"""

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_MASK_DELTA = 0xA282EAD8
# A row short enough that small arrays need few steps, rows few enough that large ones stay in the cache.
_ROW_BYTES, _MAX_ROWS = 64, 1 << 13


def _make_table() -> np.ndarray:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


_TABLE = _make_table()
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`."""
    if len(data) < 4:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = int(_TABLE[(crc ^ byte) & 255]) ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    rows = 1
    while rows < _MAX_ROWS and rows * _ROW_BYTES < len(data):
        rows *= 2
    width = max(4, -(-len(data) // rows))
    padded = np.zeros(rows * width, np.uint8)
    start = padded.size - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    # Zeros in front change nothing once the start value, all ones, is part of the first four bytes.
    padded[start : start + 4] ^= 255
    # The last 32 rows stay zero: from one bit each, they become the map that advances over a row.
    matrix = np.zeros((width, rows + 32), np.uint8)
    matrix[:, :rows] = padded.reshape(rows, width).T
    state = np.concatenate((np.zeros(rows, np.uint32), _BITS))
    for column in matrix:
        state = _TABLE[(state ^ column) & 255] ^ (state >> 8)
    sums, advance = state[:rows], state[rows:]
    while len(sums) > 1:
        sums = _apply(advance, sums[::2]) ^ sums[1::2]
        advance = _apply(advance, advance)
    return int(sums[0]) ^ 0xFFFFFFFF


def _apply(linear: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Apply a linear map, given by its images of the 32 bits, to every vector."""
    chosen = np.where(vectors[:, None] & _BITS, linear, np.uint32(0))
    return np.bitwise_xor.reduce(chosen, axis=1)


def masked_crc32c(data: bytes) -> int:
    """Return the checksum as LevelDB and TensorFlow store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
