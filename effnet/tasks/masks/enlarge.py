"""From logits at the stride of a network to the class of each pixel of an image, in numpy.

Bilinear with half-pixel centres, as torch's interpolate with align_corners=False.
"""

import numpy as np

from effnet.errors import DataError

# Pixels of a band of rows, which stay in the processor's cache. There is no matrix product: on a busy machine the
# threads of a BLAS library wait for each other, and one image took a second.
_PIXELS = 2**15


def classes_of(logits: np.ndarray, *, height: int, width: int, extent: tuple[float, float] | None = None) -> np.ndarray:
    """Return the class of the largest logit of each pixel, uint8 [height, width], from float32 [classes, h, w].

    `extent` is the part of the logits, from the top left, that the image covers, in cells down and across: (h, w) by
    default. The first of equal logits wins, as by argmax. Raises DataError for other shapes.
    """
    if logits.ndim != 3 or not 0 < len(logits) <= 256 or min(height, width, *logits.shape[1:]) < 1:
        raise DataError(
            f"logits must be [1 to 256 classes, h, w] and sides at least 1; got {list(logits.shape)} for "
            f"{height} x {width}"
        )
    down, across = extent or logits.shape[1:]
    first, share = _places(height, logits.shape[1], float(down))
    left, weight = _places(width, logits.shape[2], float(across))
    below, right = (np.minimum(at + 1, sides - 1) for at, sides in ((first, logits.shape[1]), (left, logits.shape[2])))
    found = np.empty((height, width), np.uint8)
    rows = max(1, _PIXELS // width)
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        best, place = np.empty(0, np.float32), found[band]
        for number, own in enumerate(logits):
            upper = own[first[band]]
            mixed = upper + (own[below[band]] - upper) * share[band, None]
            near = mixed.take(left, axis=1)
            values = near + (mixed.take(right, axis=1) - near) * weight
            if number == 0:
                best, place[:] = values, 0
                continue
            np.copyto(place, np.uint8(number), where=values > best)
            np.maximum(best, values, out=best)
    return found


def _places(pixels: int, cells: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each pixel of a side, the first of its two cells, int64, and the weight of the second, float32."""
    centres = np.clip((np.arange(pixels) + 0.5) * (extent / pixels) - 0.5, 0, cells - 1)
    first = np.minimum(centres.astype(np.int64), max(0, cells - 2))
    return first, (centres - first).astype(np.float32)
