"""The evaluation view of an image, shared by prediction, evaluation, export and validation during training."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from effnet.data.datasets import Split, loaded_image
from effnet.data.images.decode import Decoding, Warn, decoded_image
from effnet.data.images.opening import Source
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.data.reduction import eval_reduction


def eval_decoding(preprocess: Preprocess, *, warn: Warn | None = None) -> Decoding:
    """Return how evaluation decodes an image: a large JPEG file at a reduced size."""
    return Decoding(
        channels=preprocess.channels,
        value_range=preprocess.value_range,
        reduce=partial(eval_reduction, preprocess=preprocess),
        warn=warn,
    )


def eval_view(source: Source, preprocess: Preprocess, *, warn: Warn | None = None) -> np.ndarray:
    """Return uint8 [R, R, C] of a path or the bytes of a file; raise ImageError if it cannot be decoded."""
    with decoded_image(source, eval_decoding(preprocess, warn=warn)) as image:
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
