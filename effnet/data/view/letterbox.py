"""Fit whole images of any shape into an input of fixed sides, at its top left, and map boxes and masks back.

Source: EfficientDet's preprocessing (google/automl, efficientdet/dataloader.py).
"""

import math
from dataclasses import dataclass

import numpy as np

from effnet.data.view.resample import Interpolation, resample
from effnet.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterbox:
    """An image of `height` x `width` pixels, resized to `inner_height` x `inner_width`, at the top left of an input.

    Both sides are whole pixels: that their ratios to the original differ a little is undone exactly.
    """

    height: int
    width: int
    inner_height: int
    inner_width: int

    @property
    def scale(self) -> np.ndarray:
        """The pixels of the input per pixel of the image, float64 [2]: across and down."""
        return np.array([self.inner_width / self.width, self.inner_height / self.height])

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes [n, 4] of the image in pixels of the input."""
        return boxes * np.tile(self.scale, 2)

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes [n, 4] of the input in pixels of the image, clipped to it."""
        found = boxes / np.tile(self.scale, 2)
        return np.clip(found, 0, (self.width, self.height) * 2)


def letterbox(height: int, width: int, *, input_height: int, input_width: int) -> Letterbox:
    """Return the largest size of an image, in proportion, that fits into an input of these sides.

    >>> letterbox(720, 1280, input_height=320, input_width=320)
    Letterbox(height=720, width=1280, inner_height=180, inner_width=320)
    """
    if min(height, width, input_height, input_width) < 1:
        raise DataError(f"sides must be at least 1; got {height} x {width} and {input_height} x {input_width}")
    # Whole numbers decide which side fits: the floating-point ratio of the fitting side could be rounded down.
    if input_height * width <= input_width * height:
        inner = input_height, max(1, input_height * width // height)
    else:
        inner = max(1, input_width * height // width), input_width
    return Letterbox(height=height, width=width, inner_height=inner[0], inner_width=inner[1])


def fit_image(
    image: np.ndarray,
    *,
    input_height: int,
    input_width: int,
    fill: tuple[int, ...],
    interpolation: Interpolation = "bilinear",
) -> tuple[np.ndarray, Letterbox]:
    """Return an image, uint8 [H, W, C], in an input, uint8 [input height, input width, C], and where it lies.

    The rest has the colour `fill`: the mean colour becomes 0 when pixels are normalised.
    """
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] != len(fill):
        raise DataError(f"an image must be uint8 [H, W, {len(fill)}]; got {image.dtype} {list(image.shape)}")
    place = letterbox(*image.shape[:2], input_height=input_height, input_width=input_width)
    canvas = np.empty((input_height, input_width, len(fill)), np.uint8)
    canvas[:] = fill
    canvas[: place.inner_height, : place.inner_width] = resample(
        image, width=place.inner_width, height=place.inner_height, interpolation=interpolation
    )
    return canvas, place


def fit_sides(height: int, width: int, *, longer: int, multiple: int = 32) -> tuple[int, int]:
    """Return the sides of an input that suits images of these proportions, its longer side at most `longer`.

    The shorter side is rounded up to a multiple: a square for images of 16:9 would waste 44 % of the pixels.

    >>> fit_sides(1080, 1920, longer=320)
    (192, 320)
    """
    if longer < multiple or longer % multiple:
        raise DataError(f"the longer side must be a multiple of {multiple}; got {longer}")
    shorter = multiple * math.ceil(min(height, width) * longer / (max(height, width) * multiple))
    return (shorter, longer) if height <= width else (longer, shorter)
