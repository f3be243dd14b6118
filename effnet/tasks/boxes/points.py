"""The points of an anchor-free detector: one in each cell of its levels, and the boxes around them.

Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection", CVPR 2020 (ATSS): one prior a
cell; Tian et al., ICCV 2019 (FCOS): distances to the four sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """The n cells of all levels, level by level, row by row.

    `centres` are float32 [n, 2]: x and y in pixels of the input; `strides` float32 [n, 2] are the width and the height
    of the cell; `levels` int64 [n] the place of the level.
    """

    centres: np.ndarray
    strides: np.ndarray
    levels: np.ndarray

    def __len__(self) -> int:
        return len(self.centres)


def level_sizes(height: int, width: int, *, levels: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the rows and columns of each level: level l has half of level l - 1, rounded up, as SAME padding makes it.

    >>> level_sizes(320, 320, levels=range(3, 8))
    ((40, 40), (20, 20), (10, 10), (5, 5), (3, 3))
    """
    if min(height, width, *levels) < 1:
        raise DataError(f"sides and levels must be at least 1; got {height} x {width} and {list(levels)}")
    return tuple((-(-height // 2**level), -(-width // 2**level)) for level in levels)


def points(height: int, width: int, *, levels: Sequence[int] = (3, 4, 5, 6)) -> Points:
    """Return the points of an input of `height` x `width` pixels; a cell's stride is the side over the cells.

    Raises DataError for sides or levels below 1.
    """
    centres, strides, numbers = [], [], []
    for place, (rows, columns) in enumerate(level_sizes(height, width, levels=levels)):
        stride = np.array([width / columns, height / rows], np.float32)
        y, x = np.indices((rows, columns), np.float32)
        cells = np.stack((x.ravel(), y.ravel()), axis=1)
        centres.append((cells + np.float32(0.5)) * stride)
        strides.append(np.broadcast_to(stride, cells.shape))
        numbers.append(np.full(len(cells), place))
    return Points(centres=np.concatenate(centres), strides=np.concatenate(strides), levels=np.concatenate(numbers))


LARGEST_LOG = 6.0
"""The largest logarithm of a distance in cells that counts: exp of more would be larger than any image."""


def decode_points(raw: np.ndarray, centres: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Return boxes [n, 4], left, top, right, bottom in pixels, from the raw values [n, 4] of a detector of points.

    They are the logarithms of the distances in cells.
    """
    return boxes_at(np.exp(np.minimum(raw, LARGEST_LOG)), centres, strides)


def boxes_at(distances: np.ndarray, centres: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Return boxes [n, 4], left, top, right, bottom in pixels, from the distances [n, 4] of these sides in cells."""
    low = centres - distances[:, :2] * strides
    high = centres + distances[:, 2:] * strides
    return np.concatenate((low, high), axis=1)


def distances_to(boxes: np.ndarray, centres: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Return the distances [n, 4] in cells that `boxes_at` turns into these boxes; negative for points outside."""
    return np.concatenate(((centres - boxes[:, :2]) / strides, (boxes[:, 2:] - centres) / strides), axis=1)
