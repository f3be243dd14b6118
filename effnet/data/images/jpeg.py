"""Decode parts of JPEG files: at a reduced size, keeping only the requested box."""

import functools
import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from effnet.data.images.decode import fit_channels, image_error
from effnet.data.images.jpeg_scans import check_scan_count, count_scans
from effnet.data.images.limits import BYTES_PER_PIXEL, ROOM, check_pixels
from effnet.data.images.opening import (
    JPEG_FORMATS,
    Source,
    open_image,
    open_stream,
    orientation_of,
    read_whole,
    reduce_,
)
from effnet.data.images.pixels import to_pixels, upright

_START = b"\xff\xd8\xff"

WholeBox = tuple[int, int, int, int]
"""Left, upper, right, lower in whole pixels."""

# Markers: frames of Huffman-coded samples; the scan; the JFIF segment, tables, restart interval and comments.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_SCAN = 0xDA
_PLAIN_MARKERS = frozenset({0xE0, 0xDB, 0xC4, 0xDD, 0xFE, _SCAN}) | _FRAMES

_Decoder = Callable[..., np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedJpeg:
    """A JPEG file that has been read but not decoded; width and height in pixels as shown, upright.

    `name` is its name in errors; `stored_channels` is 1 (grey) or 3; `orientation` is EXIF's, 1 to 8; `keeps` says
    that the decoder keeps all coefficients, as for progressive files, whatever the reduction.
    """

    data: bytes
    name: str
    width: int
    height: int
    stored_channels: int
    orientation: int = 1
    keeps: bool = False


def read_jpeg(source: Source, *, name: str = "") -> EncodedJpeg | None:
    """Return the file's bytes and header, or None if it is not a JPEG file of grey or RGB pixels.

    `name` names bytes in errors. Raises ImageError if the file cannot be read or its header is damaged, as
    decode_image does.
    """
    name = name or (f"<{len(source)} bytes>" if isinstance(source, bytes) else os.fspath(source))
    try:
        with open_stream(source) as stream:
            start = stream.read(len(_START))
            if start != _START:
                return None
            data = read_whole(stream)
        plain = _plain_frame(data)
        if plain is not None:
            height, width, channels = plain
            keeps = _keeps(data, width=width, height=height, channels=channels)
            return EncodedJpeg(data=data, name=name, width=width, height=height, stored_channels=channels, keeps=keeps)
        with open_image(io.BytesIO(data)) as image:
            if image.format not in JPEG_FORMATS or image.mode not in ("L", "RGB"):
                return None
            orientation = orientation_of(image)
            width, height = image.size if orientation < 5 else image.size[::-1]
            return EncodedJpeg(
                data=data,
                name=name,
                width=width,
                height=height,
                stored_channels=len(image.getbands()),
                orientation=orientation,
                keeps=_keeps(data, width=width, height=height, channels=len(image.getbands())),
            )
    except Exception as error:  # as in decode_image
        raise image_error(source, error, name=name) from error


def _keeps(data: bytes, *, width: int, height: int, channels: int) -> bool:
    found = count_scans(data)
    if found == 1 or not check_scan_count(data, pixels=width * height, found=found):
        return False
    check_pixels(width, height, bytes_needed=width * height * (4 + 2 * channels))
    return True


def _plain_frame(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels of a file without EXIF, profiles and the like, faster than Pillow.

    Return None for any other file, and for one that is too large: Pillow then reads the header.

    Source: ITU-T T.81, annex B.
    """
    frame, place = None, 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] in _PLAIN_MARKERS:
        if data[place + 1] == _SCAN:
            return frame
        if data[place + 1] in _FRAMES:
            if frame is not None or place + 10 > len(data):
                return None
            bits, height, width, channels = struct.unpack_from(">BHHB", data, place + 4)
            if bits != 8 or channels not in (1, 3) or not 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0):
                return None
            frame = height, width, channels
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def decode_part(image: EncodedJpeg, *, box: WholeBox, reduction: int = 1, channels: int = 3) -> np.ndarray:
    """Return uint8 [height, width, channels]: the part of the upright image in `box`, upright.

    With a `reduction` of 2, 4 or 8, both sides are divided by it, and the part is extended outwards to whole pixels of
    the smaller image. Without one the pixels equal those of decode_image, whether simplejpeg (if installed) or Pillow
    decodes.

    Raises:
        ImageError: the file is damaged.
    """
    left, top, right, bottom = _stored_box(box, image)
    stored = (left // reduction, top // reduction, -(-right // reduction), -(-bottom // reduction))
    try:
        with ROOM.taken(_bytes_needed(image, reduction)):
            part = _with_simplejpeg(image, stored, reduction)
            if part is None:
                part = _with_pillow(image, stored, reduction)
            return fit_channels(upright(part, image.orientation), channels)
    except Exception as error:
        raise image_error(image.data, error, name=image.name) from error


def decode_whole(image: EncodedJpeg, *, reduction: int = 1, channels: int = 3) -> np.ndarray:
    """Return the image, uint8 [height, width, channels], upright, both sides divided by `reduction`, rounded up."""
    return decode_part(image, box=(0, 0, image.width, image.height), reduction=reduction, channels=channels)


def _stored_box(box: WholeBox, image: EncodedJpeg) -> WholeBox:
    """Return the box in the stored image, before it is turned upright: the inverse of `upright`."""
    left, top, right, bottom = box
    if image.orientation in (2, 3, 6, 7):
        left, right = image.width - right, image.width - left
    if image.orientation in (3, 4, 7, 8):
        top, bottom = image.height - bottom, image.height - top
    return (left, top, right, bottom) if image.orientation < 5 else (top, left, bottom, right)


def _bytes_needed(image: EncodedJpeg, reduction: int) -> float:
    """Return the bytes needed for decoding: Pillow's image and the result, or the decoder's coefficients."""
    pixels = image.width * image.height
    decoded = pixels / reduction**2
    return max(BYTES_PER_PIXEL * decoded, 4 * decoded + 2 * pixels * image.stored_channels * image.keeps)


def _with_pillow(image: EncodedJpeg, box: WholeBox, reduction: int) -> np.ndarray:
    with open_image(io.BytesIO(image.data)) as opened:
        reduce_(opened, reduction)
        opened.load()
        return to_pixels(opened, image.stored_channels, box=box)


@functools.cache
def simplejpeg_decoder() -> _Decoder | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg


def _with_simplejpeg(image: EncodedJpeg, box: WholeBox, reduction: int) -> np.ndarray | None:
    """Return the pixels, or None if simplejpeg is absent or rejects a file that Pillow may accept or explain."""
    decode = simplejpeg_decoder()
    if decode is None:
        return None
    width, height = -(-image.width // reduction), -(-image.height // reduction)
    if image.orientation >= 5:
        width, height = height, width
    color = "RGB" if image.stored_channels == 3 else "GRAY"
    try:
        pixels = decode(image.data, color, min_height=height, min_width=width)
    except ValueError:
        return None
    left, top, right, bottom = box
    return pixels[top:bottom, left:right] if pixels.shape[:2] == (height, width) else None
