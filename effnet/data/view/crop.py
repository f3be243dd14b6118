"""Random crops of training images: the box is drawn first, then only the needed pixels are decoded."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from effnet.data.datasets import Split
from effnet.data.images.decode import Decoding, decoded_image, fit_channels, image_header
from effnet.data.images.jpeg import EncodedJpeg, decode_part, decode_whole, read_jpeg
from effnet.data.preprocess import (
    Box,
    Interpolation,
    Mode,
    Preprocess,
    on_canvas,
    random_box,
    random_resized_crop,
    resample,
)
from effnet.data.sources.source import encoded, source_name
from effnet.data.view.reduction import eval_reduction, reduction_for

RawImage = np.ndarray | EncodedJpeg
"""A decoded image, uint8 [height, width, channels], or a JPEG file that is not decoded yet."""

# A random part of a padded square is at least this share of it. The side of the square on which parts are drawn.
_LEAST_PADDED, _CANVAS = 0.6, 2**16


@contextmanager
def open_image_at(split: Split, index: int, decoding: Decoding) -> Iterator[RawImage]:
    """Yield image `index`, of a JPEG file only its bytes and size; raise ImageError if it cannot be read.

    A large decoded image counts towards the memory limit until the block ends, as in `decoded_image`.
    """
    source = split.sources[index]
    if isinstance(source, np.ndarray):
        yield fit_channels(source, decoding.channels)
        return
    with open_file(encoded(source), decoding, name=source_name(source, "")) as image:
        yield image


@contextmanager
def open_file(file: str | bytes, decoding: Decoding, *, name: str = "") -> Iterator[RawImage]:
    """Yield the image of a path or of the bytes of a file as `open_image_at` does; `name` is for errors."""
    found = read_jpeg(file, name=name) if decoding.channels in (1, 3) and decoding.sound is None else None
    if found is not None:
        yield found
        return
    with decoded_image(file, decoding, name=name) as image:
        yield image


def size_at(split: Split, index: int, decoding: Decoding | None = None) -> tuple[int, int]:
    """Return height and width of image `index`, upright, from its header; raise ImageError if it is damaged."""
    source = split.sources[index]
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    header = image_header(encoded(source), name=source_name(source, ""), decoding=decoding)
    return header.height, header.width


def decoded(image: RawImage, *, channels: int, least: int, longer: bool = False) -> np.ndarray:
    """Return the whole image, uint8 [height, width, channels].

    A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size if its shorter side keeps at least `least` pixels, or its
    `longer` one.
    """
    if isinstance(image, np.ndarray):
        return image
    shorter, longest = sorted((image.height, image.width))
    # Not even a strip's shorter side may vanish.
    reduction = min(reduction_for(longest if longer else shorter, least=least), reduction_for(shorter, least=1))
    return decode_whole(image, reduction=reduction, channels=channels)


def as_evaluated(image: RawImage, preprocess: Preprocess) -> np.ndarray:
    """Return the whole image, uint8 [height, width, channels], with the pixels that evaluation decodes."""
    if isinstance(image, np.ndarray):
        return image
    reduction = eval_reduction(image.width, image.height, preprocess=preprocess)
    return decode_whole(image, reduction=reduction, channels=preprocess.channels)


def random_part(
    image: RawImage,
    *,
    least: int,
    rng: np.random.Generator,
    channels: int = 3,
    scale: tuple[float, float] = (0.35, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mode: Mode = "center",
) -> np.ndarray:
    """Return uint8 [height, width, channels]: a random part of the image's area and aspect ratio, not yet resized.

    A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size if the part's shorter side keeps at least `least` pixels; the
    box is then extended outwards to whole pixels of the smaller image. In mode "squash" the part is drawn on the
    squashed square, where it has the aspect ratio.

    Source: torchvision.transforms.RandomResizedCrop.get_params.
    """
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)
    if mode == "squash":
        first, second, third, fourth = _square_box(rng, scale=scale)
        left, top = math.floor(first * width), math.floor(second * height)
        right, bottom = math.ceil(third * width), math.ceil(fourth * height)
    else:
        left, top, right, bottom = random_box(height, width, rng=rng, scale=scale, ratio=ratio)
    if isinstance(image, np.ndarray):
        return image[top:bottom, left:right]
    reduction = reduction_for(min(right - left, bottom - top), least=least)
    return decode_part(image, box=(left, top, right, bottom), reduction=reduction, channels=channels)


def random_view(
    image: np.ndarray,
    preprocess: Preprocess,
    *,
    rng: np.random.Generator,
    scale: tuple[float, float],
    interpolation: Interpolation,
) -> np.ndarray:
    """Return uint8 [R, R, C]: a random part of the evaluation view of the image, in the same geometry, resized.

    In the modes "squash" and "pad" the part is taken from the squashed or padded square; of a padded square it covers
    at least three fifths, so that it contains some of the image.
    """
    resolution = preprocess.resolution
    if preprocess.mode == "center":
        return random_resized_crop(image, resolution=resolution, rng=rng, scale=scale, interpolation=interpolation)
    height, width = image.shape[:2]
    if preprocess.mode == "squash":
        left, top, right, bottom = _square_box(rng, scale=scale)
        box = (left * width, top * height, right * width, bottom * height)
        return resample(image, width=resolution, height=resolution, interpolation=interpolation, box=box)
    left, top, right, bottom = _square_box(rng, scale=(max(_LEAST_PADDED, scale[0]), scale[1]))
    longer = max(height, width)
    start, stop, x, across = _overlap(left * longer, right * longer, side=width, longer=longer, resolution=resolution)
    first, last, y, down = _overlap(top * longer, bottom * longer, side=height, longer=longer, resolution=resolution)
    box = (start, first, stop, last)
    part = resample(image, width=across, height=down, interpolation=interpolation, box=box)
    return on_canvas(part, top=y, left=x, like=preprocess)


def _overlap(low: float, high: float, *, side: int, longer: int, resolution: int) -> tuple[float, float, int, int]:
    """Return the overlap of an interval of the padded side with the image, and its place and size in the output."""
    margin = (longer - side) / 2
    start, stop = max(0.0, low - margin), min(float(side), high - margin)
    scale = resolution / (high - low)
    place = min(resolution - 1, round((start + margin - low) * scale))
    return start, stop, place, max(1, min(resolution, round((stop + margin - low) * scale)) - place)


def _square_box(rng: np.random.Generator, *, scale: tuple[float, float]) -> Box:
    """Return a random part of a square of side 1, as `random_box` draws it."""
    box = random_box(_CANVAS, _CANVAS, rng=rng, scale=scale, ratio=(3 / 4, 4 / 3))
    top, left, height, width = box
    return top / _CANVAS, left / _CANVAS, height / _CANVAS, width / _CANVAS
