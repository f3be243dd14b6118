"""Files become uint8 arrays: Pillow for pictures, .npy for any other number of channels."""

import functools
import io
import math
import os
import stat
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from effnet.errors import ImageError

MAX_PIXELS = 100_000_000
"""Width times height above which a picture is refused as a decompression bomb, before it is decoded."""

FORMAT_SUFFIXES: dict[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif"}),
    "MPO": frozenset({".jpg", ".jpeg", ".mpo"}),
    "PNG": frozenset({".png", ".apng"}),
    "GIF": frozenset({".gif"}),
    "BMP": frozenset({".bmp"}),
    "WEBP": frozenset({".webp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}),
    "JPEG2000": frozenset({".jp2", ".j2k", ".jpx"}),
    "AVIF": frozenset({".avif"}),
    "ICO": frozenset({".ico"}),
    "NPY": frozenset({".npy"}),
}
"""The formats that are read. Other Pillow plugins are not tried: EPS runs a program, TGA accepts noise."""

IMAGE_SUFFIXES: frozenset[str] = frozenset().union(*FORMAT_SUFFIXES.values())

Source = str | os.PathLike[str] | bytes

_PILLOW_DEFAULT_LIMIT = 1024**3 // 4 // 3
if _PILLOW_DEFAULT_LIMIT == Image.MAX_IMAGE_PIXELS:
    # Pillow would print a warning for pictures between its limit and ours, from every thread that decodes.
    # Filtering warnings is not safe in threads, so its default is raised; a limit set by the user stays.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_NPY_MAGIC = b"\x93NUMPY"
_EXIF_ORIENTATION = 0x0112
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What a picture's header says; width and height in pixels as shown, after the EXIF orientation.

    `channels` is as stored: 1 grey, 2 grey with alpha, 3 colour, 4 RGBA or CMYK (see `mode`), N for .npy.
    """

    width: int
    height: int
    channels: int
    format: str
    mode: str


def printable(text: str | os.PathLike[str]) -> str:
    """Returns a path or name on one line: control characters and undecodable bytes become escapes."""
    safe = os.fspath(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in safe)


def decode_image(source: Source, *, channels: int = 3, name: str = "") -> np.ndarray:
    """Returns the picture as uint8 [height, width, channels], upright, its first frame if it is animated.

    1 channel is grey (ITU-R 601 luma, as Pillow), 3 RGB, 4 RGBA; with 1 or 3, alpha is composited over white.
    Any other number must be stored so, in a .npy file of uint8 or uint16 [H, W] or [H, W, C].
    16-bit values become 8-bit by >> 8, which is what Pillow does for 16-bit RGB. `name` is how errors call bytes.

    Raises:
        ImageError: the file is missing, empty, damaged, too large or has other channels.
    """
    if channels < 1:
        raise ImageError(f"channels must be at least 1, received {channels}")
    try:
        with open_stream(source) as stream:
            if _is_npy(stream):
                return fit_channels(_read_npy(stream), channels)
            with open_picture(stream) as picture:
                picture.load()
                orientation = orientation_of(picture)
                return upright(_pixels(picture, channels), orientation)
    except Exception as error:  # Pillow's plugins raise nearly anything for a damaged file
        raise image_error(source, error, name=name) from error


def convert_pillow(image: Image.Image, *, channels: int = 3) -> np.ndarray:
    """Return an image of Pillow's as `decode_image` returns that of a file; raise ImageError as it does."""
    try:
        _check_pixels(*image.size)
        image.load()
        return upright(_pixels(image, channels), orientation_of(image))
    except Exception as error:  # it may be an opened file, damaged as any other
        raise image_error(b"", error, name="<a Pillow image>") from error


def image_header(source: Source, *, name: str = "") -> ImageHeader:
    """Reads size, channels and format without decoding the pixels; raises ImageError as decode_image does."""
    try:
        with open_stream(source) as stream:
            if _is_npy(stream):
                height, width, channels = _npy_shape(stream)[0]
                return ImageHeader(width=width, height=height, channels=channels, format="NPY", mode="NPY")
            with open_picture(stream) as picture:
                width, height = picture.size
                if orientation_of(picture) >= 5:
                    width, height = height, width
                return ImageHeader(
                    width=width,
                    height=height,
                    channels=_stored_channels(picture),
                    format=picture.format or "",
                    mode=picture.mode,
                )
    except Exception as error:
        raise image_error(source, error, name=name) from error


def fit_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns uint8 [H, W, C] with the wanted channels: grey is replicated, RGB becomes luma.

    Raises:
        ImageError: the array has another number of channels that cannot be converted.
    """
    stored = image.shape[2]
    if stored == channels:
        return image
    if stored == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if stored == 3 and channels == 1:
        return np.array(Image.fromarray(np.ascontiguousarray(image)).convert("L"))[..., None]
    raise ImageError(f"it must have {channels} channels but has {stored}; store it with {channels} channels")


def image_error(source: Source, error: Exception, *, name: str = "") -> ImageError:
    """Returns what to raise for a picture that cannot be decoded; `name` stands for bytes."""
    shown = name or (f"<{len(source)} bytes>" if isinstance(source, bytes) else source)
    return ImageError(f"{printable(shown)}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, a decompression bomb; make it smaller"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture in a format that effnet reads, or its header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"it cannot be decoded ({printable(str(error)) or type(error).__name__})"


def open_stream(source: Source) -> BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise ImageError("it is empty (0 bytes)")
        return io.BytesIO(source)
    status = os.stat(source)
    # Opening a named pipe would wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes)")
    return open(source, "rb")


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMAT_SUFFIXES if name in Image.OPEN)


def open_picture(stream: BinaryIO) -> Image.Image:
    picture = Image.open(stream, formats=_formats())
    _check_pixels(*picture.size)
    return picture


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"it must have at most {MAX_PIXELS:,} pixels, its header says {width} x {height}; make it smaller"
        )


def _stored_channels(picture: Image.Image) -> int:
    if picture.mode in ("P", "PA"):
        return 4 if picture.mode == "PA" or "transparency" in picture.info else 3
    return len(picture.getbands())


def orientation_of(picture: Image.Image) -> int:
    if picture.format == "TIFF":  # Pillow turns TIFF upright itself
        return 1
    try:
        value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Source: EXIF 2.32, tag 0x0112; 5 to 8 swap the axes."""
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _pixels(picture: Image.Image, channels: int) -> np.ndarray:
    if channels not in (1, 3, 4):
        stored = _stored_channels(picture)
        raise ImageError(
            f"it must have {channels} channels but is a {picture.format} picture with {stored}; "
            f"store {channels} channels in a .npy file of uint8 [height, width, {channels}]"
        )
    grey = _deep_grey(picture)
    if grey is not None:
        colour = np.repeat(grey[..., None], min(channels, 3), axis=2)
        opaque = np.full((*grey.shape, 1), 255, np.uint8)
        return np.concatenate((colour, opaque), axis=2) if channels == 4 else colour
    if picture.mode == "La":
        picture = picture.convert("LA")
    if channels == 4:
        return np.array(picture.convert("RGBA"))
    if picture.mode in _ALPHA_MODES or "transparency" in picture.info:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    if channels == 3:
        return np.array(picture.convert("RGB"))
    if picture.mode not in ("1", "L", "RGB"):
        picture = picture.convert("RGB")
    return np.array(picture.convert("L"))[..., None]


def _deep_grey(picture: Image.Image) -> np.ndarray | None:
    """Returns uint8 [H, W] for the grey modes with more than 8 bits, which Pillow would clip; else None."""
    if picture.mode.startswith("I;16"):
        return (np.asarray(picture) >> 8).astype(np.uint8)
    if picture.mode not in ("I", "F"):
        return None
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0)
    return np.clip(values * _to_eight_bits(values, picture), 0, 255).astype(np.uint8)


def _to_eight_bits(values: np.ndarray, picture: Image.Image) -> float:
    # PNG and PGM open as "I" where they hold 16 bits. TIFF does not say the range, so the values must.
    if picture.mode == "I" and picture.format in ("PNG", "PPM"):
        return 1 / 256
    peak = float(values.max(initial=0.0))
    if picture.mode == "F" and peak <= 1:
        return 255.0
    if peak <= 255:
        return 1.0
    if peak <= 65535:
        return 1 / 256
    raise ImageError(
        f"32-bit values must lie in 0..1, 0..255 or 0..65535 but reach {peak:g}; store it with 8 or 16 bits"
    )


def _is_npy(stream: BinaryIO) -> bool:
    found = stream.read(len(_NPY_MAGIC)) == _NPY_MAGIC
    stream.seek(0)
    return found


def _npy_shape(stream: BinaryIO) -> tuple[tuple[int, int, int], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ImageError(f".npy must be version 1.0 or 2.0, received {version}")
    first = version == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    stream.seek(0)
    if dtype.kind != "u" or dtype.itemsize > 2 or len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(
            f".npy must hold uint8 or uint16 [height, width] or [height, width, channels], "
            f"received {dtype} {list(shape)}"
        )
    height, width, channels = (*shape, 1)[:3]
    _check_pixels(width, height)
    if math.prod(shape) > 4 * MAX_PIXELS:
        raise ImageError(f".npy may hold at most {4 * MAX_PIXELS:,} values, received {list(shape)}")
    return (height, width, channels), dtype


def _read_npy(stream: BinaryIO) -> np.ndarray:
    shape, dtype = _npy_shape(stream)
    values = np.load(stream, allow_pickle=False).reshape(shape)
    return np.ascontiguousarray(values if dtype.itemsize == 1 else (values >> 8).astype(np.uint8))
