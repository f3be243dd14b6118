"""Cut large images into overlapping windows, and blend the values of the windows to those of the whole image."""

from collections.abc import Iterator

import numpy as np

from effnet.errors import DataError

# The weight at a window's border; it must not be 0, for pixels of the image's border lie in one window alone.
_LEAST_WEIGHT = 0.01


def starts(length: int, window: int, *, overlap: float = 0.25) -> tuple[int, ...]:
    """Return where windows begin along a side: evenly, at least `overlap` of a window shared, none beyond the end.

    A side shorter than a window has one, at 0.

    >>> starts(1000, 400, overlap=0.25)
    (0, 300, 600)
    """
    if length < 1 or window < 1 or not 0 <= overlap < 1:
        raise DataError(f"sides must be at least 1 and 0 <= overlap < 1; got {length}, {window} and {overlap:g}")
    if length <= window:
        return (0,)
    step = max(1, int(window * (1 - overlap)))
    number = -(-(length - window) // step) + 1
    return tuple(round(i * (length - window) / (number - 1)) for i in range(number))


def cut(
    image: np.ndarray, *, height: int, width: int, overlap: float = 0.25, fill: tuple[int, ...]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the top, the left and the pixels, [height, width, C], of the windows of an image [H, W, C].

    Windows that are larger than the image are filled with the colour `fill`, as in a letterbox.
    """
    for top in starts(image.shape[0], height, overlap=overlap):
        for left in starts(image.shape[1], width, overlap=overlap):
            part = image[top : top + height, left : left + width]
            if part.shape[:2] == (height, width):
                yield top, left, part
                continue
            canvas = np.empty((height, width, image.shape[2]), image.dtype)
            canvas[:] = fill
            canvas[: part.shape[0], : part.shape[1]] = part
            yield top, left, canvas


class Blend:
    """The weighted mean of the values of windows, over an image of `height` x `width` pixels.

    A window counts most in its middle, and little at its borders, where a network sees only one side of things.
    """

    def __init__(self, height: int, width: int, *, channels: int) -> None:
        self._total = np.zeros((height, width, channels), np.float32)
        self._weight = np.zeros((height, width, 1), np.float32)

    def add(self, values: np.ndarray, *, top: int, left: int) -> None:
        """Add the values, [rows, columns, channels], of a window; what lies beyond the image is left out."""
        if values.ndim != 3 or values.shape[2] != self._total.shape[2]:
            raise DataError(f"values must be [rows, columns, {self._total.shape[2]}]; got {list(values.shape)}")
        place = self._total[top : top + values.shape[0], left : left + values.shape[1]]
        rows, columns = place.shape[:2]
        weight = np.outer(_ramp(values.shape[0]), _ramp(values.shape[1]))[:rows, :columns, None].astype(np.float32)
        place += weight * values[:rows, :columns]
        self._weight[top : top + rows, left : left + columns] += weight

    def values(self) -> np.ndarray:
        """Return the mean, float32 [height, width, channels]; raise DataError if a pixel lies in no window."""
        if not self._weight.all():
            raise DataError("every pixel of the image must lie in a window")
        return self._total / self._weight

    def classes(self) -> np.ndarray:
        """Return the class of the largest value of each pixel, uint8 [height, width]."""
        return self.values().argmax(2).astype(np.uint8)


def _ramp(length: int) -> np.ndarray:
    """Return the weights along a window: from the borders up to 1 in the middle."""
    distance = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5)
    return np.maximum(distance / (length / 2), _LEAST_WEIGHT)
