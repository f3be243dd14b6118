"""Resize images with Pillow, antialiased, whatever the number of their channels."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image

from effnet.data.images.loaded import LARGE_PIXELS, Loaded

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Box = tuple[float, float, float, float]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resample(
    image: np.ndarray | Loaded, *, width: int, height: int, interpolation: Interpolation, box: Box | None = None
) -> np.ndarray:
    """Return uint8 [height, width, C]: the image, or the part of it in `box`, resized with Pillow, antialiased.

    `box` is left, upper, right, lower in pixels. Every channel is resized independently.
    """
    whole = (0, 0, image.shape[1], image.shape[0])
    if (height, width) == image.shape[:2] and box in (None, whole):
        return image[:]
    resampling = RESAMPLING[interpolation]
    images = image.planes() if isinstance(image, Loaded) else to_images(image)
    found = []
    for one in images:
        found.append(one.resize((width, height), resampling, box=box))
        del one  # before the next is made: each may be large
    return from_images(found)


def to_images(image: np.ndarray) -> Iterator[Image.Image]:
    """Yield one image, or one per channel if Pillow has no mode for their number, or the image is large."""
    height, width, channels = image.shape
    if channels == 3 and height * width < LARGE_PIXELS:
        yield Image.fromarray(np.ascontiguousarray(image))
    elif channels == 4:
        # In mode RGBA, Pillow would multiply by the fourth channel, which need not be alpha, before it resamples.
        yield Image.frombuffer("RGBX", (width, height), np.ascontiguousarray(image), "raw", "RGBX", 0, 1)
    else:
        for channel in range(channels):
            yield Image.fromarray(np.ascontiguousarray(image[..., channel]))


def from_images(images: list[Image.Image]) -> np.ndarray:
    if len(images) > 1:
        return np.stack([np.asarray(p) for p in images], axis=-1)
    array = np.array(images[0])
    return array if array.ndim == 3 else array[..., None]
