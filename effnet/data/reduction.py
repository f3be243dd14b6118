"""At what part of its size a JPEG file is decoded, which libjpeg does at once: one rule for every road.

A photograph of 48 megapixels would take 30 times the memory of the network that sees 224 pixels of it. Up to
LARGE_PIXELS every pixel is decoded, and preprocessing is that of timm and torchvision to the last bit. Beyond, the
reduced image still has KEPT times the pixels, on the side that is measured, of what it is resized to. Measured on
photographs enlarged to 48 megapixels and a mosaic of small ones, seen at 224 pixels: inputs differ by 0.1 to 0.2 of 255
on average and by 5 at most, a probability by 0.003.
"""

import math

from effnet.data.preprocess import Preprocess

LARGE_PIXELS = 24_000_000
"""Width times height above which a JPEG file is decoded at a reduced size for evaluation."""

KEPT = 4
"""So many times the side that it is resized to, a reduced image keeps at least."""

# libjpeg decodes at these fractions of the size with its fast transforms.
_REDUCTIONS = (8, 4, 2)


def reduction_for(side: int, *, least: int) -> int:
    """Return 8, 4, 2 or 1: by how much `side` pixels may be divided so that at least `least` are left."""
    return next((factor for factor in _REDUCTIONS if side >= factor * least), 1)


def eval_reduction(width: int, height: int, *, preprocess: Preprocess) -> int:
    """Return by what both sides of a JPEG file are divided for evaluation: 8, 4, 2 or, of most, 1."""
    if preprocess.mode == "pad":
        return large_reduction(width, height, side=max(width, height), wanted=preprocess.resolution)
    wanted = math.floor(preprocess.resolution / preprocess.crop)
    return large_reduction(width, height, side=min(width, height), wanted=wanted)


def large_reduction(width: int, height: int, *, side: int, wanted: int) -> int:
    """Return the same for an image whose `side` is to be resized to `wanted` pixels."""
    return reduction_for(side, least=KEPT * wanted) if width * height > LARGE_PIXELS else 1
