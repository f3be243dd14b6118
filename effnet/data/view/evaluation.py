"""The evaluation view of an image, shared by prediction, evaluation, export and validation during training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from effnet.data.datasets import Split, loaded_image
from effnet.data.images.decode import Decoding, Warn, convert_pillow, decoded_for_resizing, decoded_image
from effnet.data.images.opening import Source
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.data.view.reduction import eval_reduction
from effnet.data.view.value_range import to_uint8
from effnet.errors import DataError, InputError

ImageLike = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
IMAGES = "a path, the bytes of a file, a Pillow image or a uint8 array [height, width, channels]"


def eval_decoding(preprocess: Preprocess, *, warn: Warn | None = None) -> Decoding:
    """Return how evaluation decodes an image: a large JPEG file at a reduced size."""
    return Decoding(
        channels=preprocess.channels,
        value_range=preprocess.value_range,
        sound=preprocess.sound,
        reduce=partial(eval_reduction, preprocess=preprocess),
        warn=warn,
    )


def eval_view(source: Source, preprocess: Preprocess, *, warn: Warn | None = None) -> np.ndarray:
    """Return uint8 [R, R, C] of a path or the bytes of a file; raise ImageError if it cannot be decoded."""
    with decoded_for_resizing(source, eval_decoding(preprocess, warn=warn)) as image:
        return resize_and_crop(image, preprocess)


def eval_view_at(split: Split, index: int, preprocess: Preprocess, *, warn: Warn | None = None) -> np.ndarray:
    """Return uint8 [R, R, C] of image `index` of a split; raise ImageError if it cannot be decoded."""
    with eval_image_at(split, index, preprocess, warn=warn) as image:
        return resize_and_crop(image, preprocess)


@contextmanager
def eval_image_at(
    split: Split, index: int, preprocess: Preprocess, *, warn: Warn | None = None
) -> Iterator[np.ndarray]:
    """Yield image `index` as evaluation decodes it, uint8 [height, width, C], not yet resized; see `loaded_image`."""
    with loaded_image(split, index, eval_decoding(preprocess, warn=warn)) as image:
        yield image


def prepare_image(image: ImageLike, preprocess: Preprocess, *, warn: Warn | None = None) -> np.ndarray:
    """Return one image, preprocessed for evaluation: uint8 [resolution, resolution, channels].

    A large JPEG file is decoded at a reduced size, a Pillow image at its full size; see `checked_array` for arrays.
    Raises ImageError if it cannot be decoded, InputError for anything else.
    """
    if isinstance(image, np.ndarray):
        return resize_and_crop(checked_array(image, preprocess), preprocess)
    if isinstance(image, Image.Image):
        return resize_and_crop(convert_pillow(image, eval_decoding(preprocess, warn=warn)), preprocess)
    if isinstance(image, str | bytes | os.PathLike):
        return eval_view(os.fspath(image), preprocess, warn=warn)
    raise InputError(f"an image must be {IMAGES}; got {type(image).__name__}")


def whole_image(image: ImageLike, preprocess: Preprocess, *, warn: Warn | None = None) -> np.ndarray:
    """Return one image upright, at its full size: uint8 [height, width, channels]; raises as prepare_image."""
    if isinstance(image, np.ndarray):
        return checked_array(image, preprocess)
    decoding = replace(eval_decoding(preprocess, warn=warn), reduce=None)
    if isinstance(image, Image.Image):
        return convert_pillow(image, decoding)
    if isinstance(image, str | bytes | os.PathLike):
        with decoded_image(os.fspath(image), decoding) as found:
            return np.array(found)
    raise InputError(f"an image must be {IMAGES}; got {type(image).__name__}")


def checked_array(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return an image in memory as uint8 [height, width, channels].

    It must be that already, for one channel also [height, width]; with a value range, also other integers or floats.
    """
    found = preprocess.value_range
    if found is not None and image.dtype != np.uint8 and image.dtype.kind in "uif":
        image = to_uint8(image, image.dtype.name, found)
    if image.ndim == 2 and preprocess.channels == 1:
        image = image[..., None]
    expected = f"uint8 [height, width, {preprocess.channels}]"
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != preprocess.channels:
        raise DataError(f"an image as an array must be {expected}; got {image.dtype} {image.shape}")
    return image
