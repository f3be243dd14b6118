"""Whether one image shows a part of another, by their small grey copies."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from effnet.data.view.resample import resample

SIDE = 48
"""The longer side of the small copies."""
# The longer side of the part over that of the whole.
_SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
# A part with fewer pixels, or of less contrast (as a share of full contrast), fits anywhere.
_LEAST_SIDE, _LEAST_CONTRAST = 10, 0.02


def small_grey(image: np.ndarray) -> np.ndarray:
    """Return a small grey copy of an image [height, width, channels], float32 0..1, its longer side of 48 pixels."""
    grey = image[..., :3].mean(2, dtype=np.float32)[..., None].round().astype(np.uint8)
    return _resized(grey, SIDE / max(image.shape[:2]))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest correlation of one small grey copy, whole, with any part of the other, mirrored or not.

    The part has half the sides of the whole or more. 1 is the same up to brightness and contrast, 0 anything else.
    """
    flipped = other[:, ::-1]
    return max(_within(part, whole) for part, whole in ((one, other), (other, one), (one, flipped), (flipped, one)))


def _within(part: np.ndarray, whole: np.ndarray) -> float:
    best = 0.0
    pixels = np.rint(255 * part).astype(np.uint8)[..., None]
    for scale in _SCALES:
        # As wide, or as high, as this share of the whole: whichever is smaller.
        factor = scale * min(whole.shape[0] / part.shape[0], whole.shape[1] / part.shape[1])
        small = _resized(pixels, factor)
        if min(small.shape) < _LEAST_SIDE or small.std() < _LEAST_CONTRAST:
            continue
        windows = sliding_window_view(whole, small.shape)
        spreads = windows.std((2, 3))
        products = np.einsum("yxhw,hw->yx", windows, small - small.mean(), optimize=True) / small.size
        # Flat windows are like nothing.
        best = max(best, float((products / np.maximum(spreads, _LEAST_CONTRAST) / small.std()).max()))
    return best


def _resized(grey: np.ndarray, factor: float) -> np.ndarray:
    height, width = (max(1, round(side * factor)) for side in grey.shape[:2])
    return resample(grey, width=width, height=height, interpolation="bilinear")[..., 0].astype(np.float32) / 255
