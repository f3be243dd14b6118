"""Damaged copies of good files, the same ones for the same seed."""

import random

# Values for sizes, offsets and counts in headers.
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# The start of a file mostly decides how it is read; archives have a list at their end.
_HEAD_BYTES, _TAIL_BYTES = 512, 1024


def mutant(data: bytes, *, seed: int) -> bytes:
    """Return a copy of `data` with one to three random damages."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_DAMAGES)(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    size = len(data)
    if not size:
        return 0
    low, high = rng.choice(((0, size), (0, min(size, _HEAD_BYTES)), (max(0, size - _TAIL_BYTES), size)))
    return rng.randrange(low, high)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    place, length = _place(data, rng), rng.choice((1, 4, 16, 200))
    filler = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data[:place] + filler[: len(data) - place] + data[place + length :]


def _extreme(data: bytes, rng: random.Random) -> bytes:
    width = rng.choice((2, 4, 8))
    place, value = _place(data, rng), rng.choice(_EXTREMES) % (1 << 8 * width)
    return data[:place] + value.to_bytes(width, rng.choice(("little", "big"))) + data[place + width :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    place, length = _place(data, rng), rng.choice((1, 8, 64, 512))
    return data[:place] + data[place : place + length] * rng.choice((2, 3, 100)) + data[place + length :]


def _remove(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + rng.choice((1, 8, 64, 512)) :]


_DAMAGES = (_cut, _flip, _flip, _overwrite, _extreme, _extreme, _repeat, _remove)
