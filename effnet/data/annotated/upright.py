"""Turn boxes, points and masks of an image as stored into those of the upright image, by its EXIF orientation.

Source: EXIF 2.32, tag 0x0112; the same turns as PIL.ImageOps.exif_transpose.
"""

import numpy as np

from effnet.data.images.decode import ImageHeader


def turn_points(points: np.ndarray, header: ImageHeader) -> np.ndarray:
    """Return points [n, 2], x and y of the stored image, as those of the upright image."""
    x, y = points[:, 0], points[:, 1]
    width, height = header.width, header.height  # upright
    turned = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (width - y, x),
        7: (width - y, height - x),
        8: (y, height - x),
    }[header.orientation]
    return np.stack(turned, axis=1)


def turn_boxes(boxes: np.ndarray, header: ImageHeader) -> np.ndarray:
    """Return boxes [n, 4], left, top, right, bottom of the stored image, as those of the upright image."""
    first, second = turn_points(boxes[:, :2], header), turn_points(boxes[:, 2:], header)
    return np.concatenate((np.minimum(first, second), np.maximum(first, second)), axis=1)


def turn_mask(mask: np.ndarray, header: ImageHeader) -> np.ndarray:
    """Return a mask [height, width, ...] of the stored image as that of the upright image."""
    if header.orientation >= 5:
        mask = mask.swapaxes(0, 1)
    down = header.orientation in (3, 4, 7, 8)
    across = header.orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(mask[:: -1 if down else 1, :: -1 if across else 1])
