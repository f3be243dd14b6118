"""EfficientDet's anchors and its code of boxes.

Source: Tan, Pang, Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020; google/automl,
efficientdet/tf2/anchors.py. The ratios of effdet 0.4.1 for weights of automl are its rounded pairs.
"""

from collections.abc import Sequence

import numpy as np

from effnet.tasks.boxes.points import level_sizes

RATIOS = ((1.0, 1.0), (2**0.5, 0.5**0.5), (0.5**0.5, 2**0.5))
"""The width and height of anchors as automl has them, relative to a square of the same area."""

ROUNDED_RATIOS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
"""The same, rounded, as published checkpoints were trained with."""

# A code beyond this would make a box larger than any image; exp of it would overflow.
_LARGEST_LOG = 10.0


def anchors(
    height: int,
    width: int,
    *,
    levels: Sequence[int] = (3, 4, 5, 6, 7),
    scale: float = 4.0,
    octaves: int = 3,
    ratios: Sequence[tuple[float, float]] = RATIOS,
) -> np.ndarray:
    """Return anchors, float32 [n, 4]: left, top, right, bottom in pixels of an input of `height` x `width`.

    They are in the order of EfficientDet's outputs: level, row, column, octave, ratio. The stride of a level is the
    side over its cells, which need not be whole: 320 / 3.
    """
    found = []
    for rows, columns in level_sizes(height, width, levels=levels):
        stride_x, stride_y = width / columns, height / rows
        octave = scale * 2 ** (np.arange(octaves) / octaves)
        half_x = np.array([[size * stride_x * x / 2 for x, _ in ratios] for size in octave]).ravel()
        half_y = np.array([[size * stride_y * y / 2 for _, y in ratios] for size in octave]).ravel()
        y, x = np.meshgrid((np.arange(rows) + 0.5) * stride_y, (np.arange(columns) + 0.5) * stride_x, indexing="ij")
        x, y = x.reshape(-1, 1), y.reshape(-1, 1)
        found.append(np.stack((x - half_x, y - half_y, x + half_x, y + half_y), axis=2).reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)


def decode(codes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return boxes [n, 4], left, top, right, bottom, from EfficientDet's codes [n, 4]: ty, tx, th, tw."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2 + codes[:, 1::-1] * sides
    half = np.exp(np.minimum(codes[:, 3:1:-1], _LARGEST_LOG)) * sides / 2
    return np.concatenate((centres - half, centres + half), axis=1)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the codes [n, 4] that `decode` turns into these boxes, which must have an area."""
    sides = anchors[:, 2:] - anchors[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2 / sides
    grown = np.log((boxes[:, 2:] - boxes[:, :2]) / sides)
    return np.concatenate((shift[:, ::-1], grown[:, ::-1]), axis=1)
