"""Find the same photograph in another size or encoding: by a perceptual hash, then by a small copy.

Source: the hash is pHash, the signs of the lowest frequencies of a cosine transform (C. Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from effnet.data.view.reduction import large_reduction

# Measured: photographs (imagenette and 290 others) saved again at JPEG quality 40 to 75, at 0.5 and 0.71 of their size,
# and both, are found in 98.7 to 100 of 100 cases; landscapes of 140 x 105 pixels in 72 (half the size at quality 60) to
# 100; CIFAR-10's 32 pixels in 99.9 at quality 75, 29 at quality 40. No two of 13,190 different photographs (those and
# 12,000 of CIFAR-10) are joined; of 2,000 landscapes five pairs are, each the same photograph in other colours, and of
# 9,583 products on white a few pairs of one article in two colours. A looser limit would join more of those.
MOST_BITS = 6
MOST_DIFFERENCE = 0.1
# For an image without contrast (in grey levels), such as a black one, neither means anything.
_LEAST_CONTRAST = 4.0
# Digits and icons are too similar to each other below this size.
_LEAST_SIDE = 32
_SIDE, _COPY, _FREQUENCIES = 32, 16, 8
# Of 290 photographs (photos7), no two have both so close a hash and such a correlation of brightness; 99 % or more of
# their copies in JPEG at quality 20, half the size, grey or mirrored have.
_LEAST_CORRELATION = 0.9
# Looks are compared with all others so many at a time.
_ROWS = 1024
# Limits the work if very many images share a hash.
_MOST_COMPARED = 200

_ANGLES = (np.arange(_SIDE) + 0.5) * np.pi / _SIDE
_COSINES = np.cos(np.outer(np.arange(_FREQUENCIES), _ANGLES)).astype(np.float32)


def look_reduction(width: int, height: int) -> int:
    """Return the divisor of both sides at which a JPEG file is decoded for its look: 8, 4, 2 or, mostly, 1."""
    return large_reduction(width, height, side=min(width, height), wanted=_SIDE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """The appearance of an image: a 64-bit perceptual hash, and a copy of 16 x 16 pixels, float32 [768]."""

    hash: int
    copy: np.ndarray
    contrast: float


def look_at(pixels: np.ndarray) -> Look | None:
    """Return the look of uint8 [height, width, channels], or None if it is too small or has too little contrast."""
    if min(pixels.shape[:2]) < _LEAST_SIDE:
        return None
    seen = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(seen))
    small = image.resize((_COPY, _COPY), Image.Resampling.BOX).convert("RGB")
    copy = np.asarray(small, dtype=np.float32).ravel()
    contrast = float(np.sqrt(copy.reshape(-1, 3).var(axis=0).mean()))
    if contrast < _LEAST_CONTRAST:
        return None
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
    waves = (_COSINES @ grey @ _COSINES.T).ravel()
    waves[0] = 0  # the mean: brightness, not shape
    bits = waves > np.median(waves[1:])
    return Look(hash=int.from_bytes(np.packbits(bits).tobytes()), copy=copy.astype(np.uint8), contrast=contrast)


def alike(looks: Sequence[Look]) -> list[list[int]]:
    """Return lists of two or more indices of looks that show the same image.

    Each look is compared with the first of every list whose hash is close, so that small changes, as in a video, do
    not join its first and last frame.
    """
    firsts: list[int] = []
    lists: list[list[int]] = []
    buckets: dict[tuple[int, int], list[int]] = {}
    for index, look in enumerate(looks):
        bands = list(_bands(look.hash))
        near = dict.fromkeys(number for band in bands for number in buckets.get(band, ())[:_MOST_COMPARED])
        match = next((number for number in near if _same(look, looks[firsts[number]])), None)
        if match is not None:
            lists[match].append(index)
            continue
        for band in bands:
            buckets.setdefault(band, []).append(len(firsts))
        firsts.append(index)
        lists.append([index])
    return [found for found in lists if len(found) > 1]


def alike_mirrored(looks: Sequence[Look], mirrored: Sequence[Look]) -> list[tuple[int, int]]:
    """Return the pairs of looks that show the same image, in colour or in grey, or mirrored.

    `mirrored` are the looks of the mirrored images. The small copies must agree in brightness alone.
    """
    hashes, others = (np.array([look.hash for look in each], np.uint64) for each in (looks, mirrored))
    greys, flipped = _greys(looks), _greys(mirrored)
    found: set[tuple[int, int]] = set()
    for first in range(0, len(looks), _ROWS):
        own = slice(first, first + _ROWS)
        for hashed, grey in ((hashes, greys), (others, flipped)):
            close = np.bitwise_count(hashes[own, None] ^ hashed[None]) <= MOST_BITS
            close &= greys[own] @ grey.T >= _LEAST_CORRELATION
            pairs = zip(*(places.tolist() for places in np.nonzero(close)), strict=True)
            found |= {(first + one, other) for one, other in pairs if first + one < other}
    return sorted(found)


def _greys(looks: Sequence[Look]) -> np.ndarray:
    """Return the brightness of the small copies, [looks, 256], each of mean 0 and length 1."""
    found = np.stack([look.copy for look in looks]).reshape(len(looks), -1, 3).mean(2)
    found = found - found.mean(1, keepdims=True)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def _bands(value: int) -> Iterator[tuple[int, int]]:
    """Yield parts of a hash, one more than the bits that may differ: two close hashes share at least one part."""
    edges = [round(number * 64 / (MOST_BITS + 1)) for number in range(MOST_BITS + 2)]
    for number, (low, high) in enumerate(pairwise(edges)):
        yield number, (value >> low) & ((1 << (high - low)) - 1)


def _same(one: Look, other: Look) -> bool:
    if (one.hash ^ other.hash).bit_count() > MOST_BITS:
        return False
    difference = np.sqrt(np.mean(np.square(one.copy.astype(np.float32) - other.copy)))
    return bool(difference <= MOST_DIFFERENCE * min(one.contrast, other.contrast))
