"""Decode files to uint8 arrays: images with Pillow, others as `arrays` reads them."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from effnet.data.images.arrays import find_array
from effnet.data.images.deep import ORDINARY, Deep, needs_second, pieces_of, stored_kind, take_second_
from effnet.data.images.limits import ROOM, check_pixels
from effnet.data.images.loaded import Loaded, loaded_as_is
from effnet.data.images.opening import (
    FORMAT_SUFFIXES,
    JPEG_FORMATS,
    Source,
    bytes_needed,
    decoding_bytes,
    load_image,
    open_image,
    open_stream,
    orientation_of,
    read_whole,
    reduce_,
)
from effnet.data.images.pixels import pieces, stored_channels, to_pixels
from effnet.data.images.tiff import find_bands
from effnet.data.sound.record import Sound
from effnet.data.view.value_range import ValueRange, assumption
from effnet.errors import ImageError
from effnet.system.text import printable

IMAGE_SUFFIXES: frozenset[str] = frozenset().union(*FORMAT_SUFFIXES.values())

Reduce = Callable[[int, int], int]
"""From the two sides of a JPEG file, in any order, to the divisor of both when it is decoded: 1, 2, 4 or 8."""

Warn = Callable[[str], None]
"""Is called with the assumption made about an image of more than 8 bits if no range is known."""

Check = Callable[[int, int], None]
"""Is called with width and height as stored, before any pixel is decoded; it raises ImageError to refuse the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """The arguments of `decode_image` but its name, `warn` and `check`; sounds need a spectrogram's parameters."""

    channels: int = 3
    value_range: ValueRange | None = None
    sound: Sound | None = None
    reduce: Reduce | None = None
    warn: Warn | None = None
    check: Check | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The header of an image; width and height in pixels as shown, after the EXIF orientation.

    `channels` is as stored: 1 grey, 2 grey with alpha, 3 colour, 4 RGBA or CMYK (see `mode`), N for bands; with `exact`
    the file gives only these, so that N of several must be requested. `values` is the type of the values; it is "uint8"
    also for a file of more bits that declares their range itself. `pages` are those of a TIFF file if all are grey and
    alike, otherwise 1. `window` are the values for black and white that a DICOM file gives. `orientation` is EXIF's, 1
    to 8: width and height were exchanged if it is 5 or more.
    """

    width: int
    height: int
    channels: int
    format: str
    mode: str
    values: str = ORDINARY
    exact: bool = False
    pages: int = 1
    window: tuple[float, float] | None = None
    orientation: int = 1


def decode_image(
    source: Source,
    *,
    channels: int = 3,
    name: str = "",
    value_range: ValueRange | None = None,
    sound: Sound | None = None,
    reduce: Reduce | None = None,
) -> np.ndarray:
    """Return the image as uint8 [height, width, channels], upright, its first frame if it is animated.

    1 channel is grey (ITU-R 601 luma, as Pillow), 3 RGB, 4 RGBA; with 1 or 3, alpha is composited over white.
    Any other number must be stored: in a .npy file of integers or real numbers [H, W] or [H, W, C], as bands or pages
    of a TIFF file, or as frames of a DICOM file. A sound is the spectrogram [mels, columns, 1] of the whole file.
    Values of more than 8 bits are mapped to uint8 by `value_range` or, without one, by the rule of `to_uint8`. `name`
    names bytes in errors. `reduce` may choose a reduced size for a JPEG file, rounded up; by default it is full size.

    Raises:
        ImageError: the file is missing, empty, damaged, too large or has other channels, or no range is known.
    """
    decoding = Decoding(channels=channels, value_range=value_range, sound=sound, reduce=reduce)
    with decoded_image(source, decoding, name=name) as image:
        return image


@contextlib.contextmanager
def decoded_image(source: Source, decoding: Decoding, *, name: str = "") -> Iterator[np.ndarray]:
    """Yield the result of `decode_image`, for a block that reduces it to something smaller.

    Large images of all threads share one memory limit (effnet.data.images.limits.ROOM); this one counts until the block
    ends.
    """
    with _decoded(source, decoding, name=name, as_array=True) as image:
        assert isinstance(image, np.ndarray)
        yield image


@contextlib.contextmanager
def decoded_for_resizing(source: Source, decoding: Decoding, *, name: str = "") -> Iterator[np.ndarray | Loaded]:
    """Yield what `decoded_image` does, but without an array if Pillow can resize the image as it is."""
    with _decoded(source, decoding, name=name, as_array=False) as image:
        yield image


@contextlib.contextmanager
def _decoded(source: Source, decoding: Decoding, *, name: str, as_array: bool) -> Iterator[np.ndarray | Loaded]:
    if decoding.channels < 1:
        raise ImageError(f"channels must be at least 1, received {decoding.channels}")
    with contextlib.ExitStack() as held:
        try:
            image = _decode(source, decoding, held, as_array=as_array)
        except Exception as error:  # Pillow's plugins raise nearly anything for a damaged file
            raise image_error(source, error, name=name) from error
        yield image


def _decode(source: Source, decoding: Decoding, held: contextlib.ExitStack, *, as_array: bool) -> np.ndarray | Loaded:
    """Return the image; `held` keeps the memory that is reserved for it, and the file of one that is `Loaded`."""
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(open_stream(source))
        if (array := find_array(stream, channels=decoding.channels, sound=decoding.sound)) is not None:
            if array.frames > 1 and array.frames != decoding.channels:
                raise ImageError(
                    f"it has {array.frames} frames, and {decoding.channels} channels are requested: frames are read as "
                    f"channels if there are as many (channels={array.frames}); save others as a file each"
                )
            if decoding.check is not None:
                decoding.check(array.width, array.height)
            _warn_if_assumed(array.kind, decoding)
            held.enter_context(ROOM.taken(array.bytes_needed))
            return fit_channels(array.read(decoding.value_range), decoding.channels)
        if decoding.sound is not None:
            raise ImageError("it is an image, but the others, or those that the model was fitted on, are sounds")
        image, deep = opened.enter_context(_loaded(stream, decoding, held))
        orientation = orientation_of(image)
        found = None if as_array or deep else loaded_as_is(image, decoding.channels, orientation=orientation)
        if found is not None:
            held.enter_context(opened.pop_all())
            return found
        return to_pixels(image, decoding.channels, orientation=orientation, deep=deep)


@contextlib.contextmanager
def _loaded(
    stream: BinaryIO, decoding: Decoding, room: contextlib.ExitStack, *, whole: bool = False
) -> Iterator[tuple[Image.Image, Deep | None]]:
    """Yield a loaded image and its value type, None for 8 bits; with a range or `whole`, values keep all their bits."""
    with open_image(stream) as image, contextlib.ExitStack() as also:
        if decoding.check is not None:
            decoding.check(*image.size)
        kind = stored_kind(image)
        _warn_if_assumed(kind, decoding)
        value_range = decoding.value_range
        twice = needs_second(image) and (whole or value_range is not None)
        reduction = decoding.reduce(*image.size) if decoding.reduce and image.format in JPEG_FORMATS else 1
        room.enter_context(ROOM.taken(decoding_bytes(image, stream, reduction=reduction)))
        reduce_(image, reduction)
        load_image(image)
        second = None
        if twice:
            stream.seek(0)
            second = also.enter_context(open_image(stream))
            take_second_(second)
            load_image(second)
        yield image, None if kind == ORDINARY else Deep(kind=kind, value_range=value_range, second=second)


def _warn_if_assumed(kind: str, decoding: Decoding) -> None:
    if decoding.warn is not None and decoding.value_range is None and (assumed := assumption(kind)):
        decoding.warn(assumed)


def stored_values(source: Source, decoding: Decoding | None = None, *, name: str = "") -> Iterator[np.ndarray]:
    """Yield the values of an image of more than 8 bits, in pieces; raise ImageError as decode_image does.

    Those of a file that is read as an array are [..., channels]. `decoding` is that of the data set, if it is known.
    """
    decoding = decoding or Decoding()
    try:
        with contextlib.ExitStack() as room, open_stream(source) as stream:
            if (array := find_array(stream, channels=decoding.channels, sound=decoding.sound)) is not None:
                room.enter_context(ROOM.taken(array.bytes_needed))
                yield from array.values()
                return
            with _loaded(stream, Decoding(), room, whole=True) as (image, deep):
                if deep is not None:
                    yield from pieces_of(image, deep, pieces((0, 0, *image.size)))
    except Exception as error:  # as in decoded_image
        raise image_error(source, error, name=name) from error


def convert_pillow(image: Image.Image, decoding: Decoding) -> np.ndarray:
    """Return a Pillow image converted as `decode_image` converts a file, at full size; raise ImageError as it does.

    Pillow keeps only the upper bytes of 16-bit colours: with a range, the file of an image not yet loaded is read.
    """
    channels, value_range = decoding.channels, decoding.value_range
    try:
        kind, needed = stored_kind(image), bytes_needed(image)
        check_pixels(*image.size, bytes_needed=needed)
        _warn_if_assumed(kind, decoding)
        if value_range is not None and needs_second(image):
            return decode_image(_file_of(image), channels=channels, value_range=value_range)
        deep = None if kind == ORDINARY else Deep(kind=kind, value_range=value_range)
        with ROOM.taken(needed):
            image.load()
            return to_pixels(image, channels, orientation=orientation_of(image), deep=deep)
    except Exception as error:  # it may be an opened file, which can be damaged
        raise image_error(b"", error, name="<a Pillow image>") from error


def _file_of(image: Any) -> bytes:
    place = image.fp.tell()
    image.fp.seek(0)
    data = read_whole(image.fp)
    image.fp.seek(place)
    return data


def image_header(source: Source, *, name: str = "", decoding: Decoding | None = None) -> ImageHeader:
    """Read size, channels and format without decoding the pixels; raise ImageError as decode_image does.

    `decoding` is that of the data set, if it is known: the size of a sound is that of a spectrogram of its parameters.
    """
    channels, sound = (None, Sound()) if decoding is None else (decoding.channels, decoding.sound)
    try:
        with open_stream(source) as stream:
            if (array := find_array(stream, channels=channels, sound=sound)) is not None:
                return ImageHeader(
                    width=array.width, height=array.height, channels=array.channels, format=array.format,
                    mode=array.mode, values=array.kind, exact=True, window=array.window,
                )  # fmt: skip
            pages = find_bands(stream)
            with open_image(stream) as image:
                (width, height), orientation = image.size, orientation_of(image)
                if orientation >= 5:
                    width, height = height, width
                return ImageHeader(
                    width=width,
                    height=height,
                    channels=stored_channels(image),
                    format=image.format or "",
                    mode=image.mode,
                    values=stored_kind(image),
                    pages=pages.channels if pages is not None and pages.pages else 1,
                    orientation=orientation,
                )
    except Exception as error:
        raise image_error(source, error, name=name) from error


def fit_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8 [H, W, C] with the requested channels: grey is replicated, RGB becomes luma.

    Raises:
        ImageError: the array has another number of channels that cannot be converted.
    """
    stored = image.shape[2]
    if stored == channels:
        return image
    if stored == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if stored == 3 and channels == 1:
        return to_pixels(Image.fromarray(np.ascontiguousarray(image)), 1)
    raise ImageError(f"it must have {channels} channels but has {stored}; store it with {channels} channels")


def image_error(source: Source, error: Exception, *, name: str = "") -> ImageError:
    """Return the error for an image that cannot be decoded; `name` is shown for bytes.

    The frames of `error` forget their variables: whoever keeps the error would keep the pixels of an image that breaks
    off, 100 MB of a large one.
    """
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    shown = name or (f"<{len(source)} bytes>" if isinstance(source, bytes) else source)
    return ImageError(f"{printable(shown)}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller, or set EFFNET_MAX_PIXELS"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image in a format that effnet reads, or its header is damaged"
    if isinstance(error, MemoryError):
        return "there is too little memory to decode it; make it smaller"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"it cannot be decoded ({printable(str(error).strip()) or type(error).__name__})"
