"""The images that a server decodes: JPEG, PNG and WebP, of limited pixels."""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from PIL import Image

from effnet.data.images.decode import Warn, decoded_for_resizing, decoded_image
from effnet.data.images.limits import BYTES_PER_PIXEL, PixelsError, Room
from effnet.data.images.loaded import LARGE_PIXELS
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.data.view.evaluation import eval_decoding
from effnet.errors import ImageError
from effnet.serving.http.errors import HttpError
from effnet.system.heap import trim_heap
from effnet.system.text import brief

_NAME = "the image"


# The memory of large images that are decoded at once: one of the most pixels, or several smaller ones.
_rooms: dict[int, Room] = {}


def check_format(data: bytes) -> None:
    """Raise HttpError unless the data begin like a JPEG, PNG or WebP file; their end may be missing."""
    if not data:
        raise HttpError(400, "a request must have an image; its body is empty: send the bytes of a file")
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return
    raise HttpError(
        415,
        f"an image must be a JPEG, PNG or WebP file; got {len(data):,} bytes that begin with {brief(data[:8])}",
        rejection="format",
    )


def prepared_image(data: bytes, preprocess: Preprocess, *, max_pixels: int, warn: Warn | None = None) -> np.ndarray:
    """Return an encoded image as the model's input, uint8 [height, width, channels], as `Predictor.prepare` does.

    Raises HttpError for another format, too many pixels, or an image that cannot be decoded.
    """
    return _decoded(data, preprocess, max_pixels=max_pixels, warn=warn, whole=False)


def upright_image(data: bytes, preprocess: Preprocess, *, max_pixels: int, warn: Warn | None = None) -> np.ndarray:
    """Return an encoded image upright, at its full size; raises as `prepared_image`."""
    return _decoded(data, preprocess, max_pixels=max_pixels, warn=warn, whole=True)


def _decoded(data: bytes, preprocess: Preprocess, *, max_pixels: int, warn: Warn | None, whole: bool) -> np.ndarray:
    check_format(data)

    def check(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise PixelsError(f"its header says {width} x {height}")
        taken.enter_context(room.taken(BYTES_PER_PIXEL * width * height))

    room = _rooms.setdefault(max_pixels, Room(BYTES_PER_PIXEL * max_pixels))

    decoding = replace(eval_decoding(preprocess, warn=warn), check=check)
    try:
        with ExitStack() as taken:
            if whole:
                with decoded_image(data, replace(decoding, reduce=None), name=_NAME) as image:
                    return np.array(image)
            with decoded_for_resizing(data, decoding, name=_NAME) as found:
                large = found.shape[0] * found.shape[1] >= LARGE_PIXELS
                prepared = resize_and_crop(found, preprocess)
            if large:
                trim_heap()
            return prepared
    except ImageError as error:
        if isinstance(error.__cause__, PixelsError | Image.DecompressionBombError):
            raise HttpError(
                413, f"an image must have at most {max_pixels:,} pixels; {error}: make it smaller", rejection="pixels"
            ) from error
        raise HttpError(422, f"an image must be whole and readable; {error}: save it again") from error
