"""The reduced size at which libjpeg decodes a large JPEG file: one rule for all evaluation code.

A photograph of 48 megapixels would take 30 times the memory of a network with 224-pixel inputs. Up to LARGE_PIXELS
every pixel is decoded, and preprocessing equals timm's and torchvision's to the last bit. Above, the reduced image
still has at least KEPT times the pixels, on the relevant side, of the resized image. Measured on photographs enlarged
to 48 megapixels and a mosaic of small ones, at 224 pixels: inputs differ by 0.1 to 0.2 of 255 on average and by 5 at
most, a probability by 0.003.
"""

import math

from effnet.data.preprocess import Preprocess

LARGE_PIXELS = 24_000_000
"""Width times height above which a JPEG file is decoded at a reduced size for evaluation."""

KEPT = 4
"""Minimum ratio of a side of the reduced image to its side after resizing."""

# libjpeg has fast transforms for these divisors.
_REDUCTIONS = (8, 4, 2)


def reduction_for(side: int, *, least: int) -> int:
    """Return the largest divisor of 8, 4, 2 and 1 at which `side` pixels are reduced to at least `least`."""
    return next((factor for factor in _REDUCTIONS if side >= factor * least), 1)


def eval_reduction(width: int, height: int, *, preprocess: Preprocess) -> int:
    """Return the divisor of both sides at which a JPEG file is decoded for evaluation: 8, 4, 2 or, mostly, 1."""
    if preprocess.mode == "pad":
        return large_reduction(width, height, side=max(width, height), wanted=preprocess.resolution)
    if preprocess.mode == "corner":
        return large_reduction(width, height, side=max(width, height), wanted=max(preprocess.size))
    wanted = math.floor(preprocess.resolution / preprocess.crop)
    return large_reduction(width, height, side=min(width, height), wanted=wanted)


def large_reduction(width: int, height: int, *, side: int, wanted: int) -> int:
    """Return the divisor for an image whose `side` is resized to `wanted` pixels; 1 if it is not large."""
    return reduction_for(side, least=KEPT * wanted) if width * height > LARGE_PIXELS else 1
