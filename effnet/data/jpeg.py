"""JPEG files decoded in part: at a reduced size, and only the box that is wanted is kept."""

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effnet.data.decode import (
    Source,
    fit_channels,
    image_error,
    open_picture,
    open_stream,
    orientation_of,
    printable,
    upright,
)

_START = b"\xff\xd8\xff"
# libjpeg decodes at these fractions of the size with its fast transforms.
_REDUCTIONS = (8, 4, 2)

WholeBox = tuple[int, int, int, int]
"""Left, upper, right, lower in whole pixels."""

_Decoder = Callable[..., np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedJpeg:
    """A JPEG file that has been read but not decoded; width and height in pixels as shown, upright.

    `stored_channels` is 1 (grey) or 3; `orientation` is EXIF's, 1 to 8; `name` says in errors which file it is.
    """

    data: bytes
    name: str
    width: int
    height: int
    stored_channels: int
    orientation: int


def read_jpeg(source: Source) -> EncodedJpeg | None:
    """Returns the file's bytes and header, or None where it is no JPEG file of grey or RGB pixels.

    Raises ImageError where the file cannot be read or its header is damaged, as decode_image does.
    """
    try:
        with open_stream(source) as stream:
            start = stream.read(len(_START))
            if start != _START:
                return None
            data = start + stream.read()
        with open_picture(io.BytesIO(data)) as picture:
            if picture.format not in ("JPEG", "MPO") or picture.mode not in ("L", "RGB"):
                return None
            orientation = orientation_of(picture)
            width, height = picture.size if orientation < 5 else picture.size[::-1]
            return EncodedJpeg(
                data=data,
                name=f"<{len(data)} bytes>" if isinstance(source, bytes) else printable(source),
                width=width,
                height=height,
                stored_channels=len(picture.getbands()),
                orientation=orientation,
            )
    except Exception as error:  # as in decode_image
        raise image_error(source, error) from error


def reduction_for(side: int, *, least: int) -> int:
    """Returns 8, 4, 2 or 1: by how much `side` pixels may be divided so that at least `least` are left."""
    return next((factor for factor in _REDUCTIONS if side >= factor * least), 1)


def decode_part(picture: EncodedJpeg, *, box: WholeBox, reduction: int = 1, channels: int = 3) -> np.ndarray:
    """Returns uint8 [height, width, channels]: the part of the upright picture in `box`, upright.

    With a `reduction`, one of 2, 4 and 8, both sides are divided by it, and the part reaches outwards to whole pixels
    of the smaller picture. Without one the pixels are those of decode_image, whether simplejpeg decodes, where it is
    installed, or Pillow.

    Raises:
        ImageError: the file is damaged.
    """
    left, top, right, bottom = _stored_box(box, picture)
    stored = (left // reduction, top // reduction, -(-right // reduction), -(-bottom // reduction))
    try:
        part = _with_simplejpeg(picture, stored, reduction)
        if part is None:
            part = _with_pillow(picture, stored, reduction)
        return fit_channels(upright(part, picture.orientation), channels)
    except Exception as error:
        raise image_error(picture.name, error) from error


def decode_whole(picture: EncodedJpeg, *, reduction: int = 1, channels: int = 3) -> np.ndarray:
    """Returns the picture, uint8 [height, width, channels], upright, both sides divided by `reduction`, rounded up."""
    return decode_part(picture, box=(0, 0, picture.width, picture.height), reduction=reduction, channels=channels)


def _stored_box(box: WholeBox, picture: EncodedJpeg) -> WholeBox:
    """Returns where the box lies before the picture is turned upright; the steps of `upright`, backwards."""
    left, top, right, bottom = box
    if picture.orientation in (2, 3, 6, 7):
        left, right = picture.width - right, picture.width - left
    if picture.orientation in (3, 4, 7, 8):
        top, bottom = picture.height - bottom, picture.height - top
    return (left, top, right, bottom) if picture.orientation < 5 else (top, left, bottom, right)


def _with_pillow(picture: EncodedJpeg, box: WholeBox, reduction: int) -> np.ndarray:
    with open_picture(io.BytesIO(picture.data)) as opened:
        if reduction > 1:
            opened.draft(opened.mode, (opened.width // reduction, opened.height // reduction))
        part = np.array(opened.crop(box))
    return part if part.ndim == 3 else part[..., None]


@functools.cache
def simplejpeg_decoder() -> _Decoder | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg


def _with_simplejpeg(picture: EncodedJpeg, box: WholeBox, reduction: int) -> np.ndarray | None:
    """Returns the pixels, or None where simplejpeg is absent, or strict about what Pillow may forgive or explain."""
    decode = simplejpeg_decoder()
    if decode is None:
        return None
    width, height = -(-picture.width // reduction), -(-picture.height // reduction)
    if picture.orientation >= 5:
        width, height = height, width
    color = "RGB" if picture.stored_channels == 3 else "GRAY"
    try:
        pixels = decode(picture.data, color, min_height=height, min_width=width)
    except ValueError:
        return None
    left, top, right, bottom = box
    return pixels[top:bottom, left:right] if pixels.shape[:2] == (height, width) else None
