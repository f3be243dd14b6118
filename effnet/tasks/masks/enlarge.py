"""From logits at the stride of a network to the class of each pixel of an image, in numpy.

Bilinear with half-pixel centres, as torch's interpolate with align_corners=False.
"""

from functools import lru_cache

import numpy as np

from effnet.errors import DataError

# Pixels of a block: its columns and, together, its rows stay in the processor's cache.
_COLUMNS, _PIXELS = 128, 2**15


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
    blocks = _blocks(width, logits.shape[2], float(across))
    found = np.empty((height, width), np.uint8)
    rows = max(1, _PIXELS // min(_COLUMNS, width))
    last = np.minimum(first + 1, logits.shape[1] - 1)
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        weight = share[band, None]
        mixed = logits[:, first[band]] * (1 - weight) + logits[:, last[band]] * weight
        for columns, cells, weights in blocks:
            found[band, columns] = _largest(mixed[:, :, cells] @ weights)
    return found


def _largest(values: np.ndarray) -> np.ndarray:
    """Return argmax over the first axis, uint8; several times as fast as numpy's."""
    best, place = values[0].copy(), np.zeros(values.shape[1:], np.uint8)
    for number in range(1, len(values)):
        better = values[number] > best
        np.copyto(place, np.uint8(number), where=better)
        np.maximum(best, values[number], out=best)
    return place


def _places(pixels: int, cells: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each pixel of a side, the first of its two cells, int64, and the weight of the second, float32."""
    centres = np.clip((np.arange(pixels) + 0.5) * (extent / pixels) - 0.5, 0, cells - 1)
    first = np.minimum(centres.astype(np.int64), max(0, cells - 2))
    return first, (centres - first).astype(np.float32)


@lru_cache(maxsize=32)
def _blocks(width: int, cells: int, extent: float) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Return the columns of each block, the cells that they need, and the weights [cells, columns].

    A matrix for all columns at once would be nearly all zeros.
    """
    first, share = _places(width, cells, extent)
    found = []
    for left in range(0, width, _COLUMNS):
        right = min(left + _COLUMNS, width)
        low, high = int(first[left]), min(int(first[right - 1]) + 2, cells)
        weights = np.zeros((high - low, right - left), np.float32)
        column = np.arange(right - left)
        weights[first[left:right] - low, column] = 1 - share[left:right]
        if cells > 1:
            weights[first[left:right] + 1 - low, column] += share[left:right]
        weights.setflags(write=False)
        found.append((slice(left, right), slice(low, high), weights))
    return tuple(found)
