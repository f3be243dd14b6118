"""Open image files with Pillow; the cost of decoding is checked before anything is decoded."""

import functools
import io
import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from effnet.data.images import avif, heic, jpeg2000, jpeg_scans
from effnet.data.images.deep import needs_second
from effnet.data.images.dicom import DICOM_SUFFIXES
from effnet.data.images.headers import check_avif, check_icon, check_size, check_tags, strip_bytes
from effnet.data.images.limits import (
    BYTES_PER_PIXEL,
    MAX_EXIF_BYTES,
    MAX_PIXELS,
    MAX_WHOLE_FILE,
    HeaderStream,
    check_pixels,
)
from effnet.data.sound.record import SOUND_SUFFIXES
from effnet.errors import ImageError

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
    "HEIF": frozenset({".heic", ".heif", ".hif"}),
    "ICO": frozenset({".ico"}),
    "NPY": frozenset({".npy"}),
    "DICOM": DICOM_SUFFIXES,
    **SOUND_SUFFIXES,
}
"""The formats that are read, and their suffixes.

Other Pillow plugins are not tried: EPS runs a program, TGA accepts noise."""

JPEG_FORMATS = ("JPEG", "MPO")
"""The formats that libjpeg decodes, also at a reduced size."""

Source = str | os.PathLike[str] | bytes

_PILLOW_DEFAULT_LIMIT = 1024**3 // 4 // 3
if _PILLOW_DEFAULT_LIMIT == Image.MAX_IMAGE_PIXELS:
    # Pillow would print a warning for images between its limit and ours, from every thread that decodes.
    # Filtering warnings is not thread-safe, so its default is raised; a limit set by the user stays.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
_PILLOW_DEFAULT_BLOCK = 16 * 2**20
if Image.core.get_block_size() == _PILLOW_DEFAULT_BLOCK:
    # glibc keeps freed blocks of up to 32 MB for each thread: half a gigabyte with large images.
    Image.core.set_block_size(4 * _PILLOW_DEFAULT_BLOCK)

# Bytes per pixel that a decoder needs besides Pillow's image and the result, which `BYTES_PER_PIXEL` counts; measured
# with every mode, see tests/data/images/test_limits.py. WebP keeps two canvases and a copy, AVIF planes of up to 16
# bits and two copies.
_DECODER_BYTES = {"WEBP": 10, "AVIF": 10}
# The planes' part of this, for an AVIF whose streams match the size in its header.
_AVIF_PLANES = 8
# Pillow decodes these in Python, a million values per second, so they have a lower limit: 12 million values.
_PYTHON_DECODERS = frozenset({"ppm_plain", "bmp_rle"})
_PYTHON_SHARE = 8
# A PNG's chunks before its pixels take three calls each, and a colour profile of 1 KB can expand to 1 MB.
_PNG_CALL_BYTES = 2**16
_MOST_PNG_CHUNKS, _MOST_DATA_CHUNKS = 200, 100_000
_PIECE_VALUES = 2**20
_PIXEL_CHUNKS = frozenset({b"IDAT", b"DDAT", b"fdAT"})
_EXIF_ORIENTATION = 0x0112
_NATIVE_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "I;32B": "I;32N", "F;32BF": "F;32NF", "F;64BF": "F;64NF"}

_Chunk = tuple[bytes, int, int]
"""Kind, place and length of a PNG chunk."""


def open_stream(source: Source) -> BinaryIO:
    """Open a regular file or bytes for reading; raise ImageError if it is empty or not a regular file, or OSError."""
    if isinstance(source, bytes):
        if not source:
            raise ImageError("it is empty (0 bytes)")
        return io.BytesIO(source)
    status = os.stat(source)
    # Opening a named pipe would wait forever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes)")
    return open(source, "rb")


def read_whole(stream: BinaryIO) -> bytes:
    """Return the whole file; raise ImageError if it is larger than any such image needs."""
    check_size(stream)
    return stream.read()


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the names of the formats that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMAT_SUFFIXES if name in Image.OPEN)


def open_image(stream: BinaryIO) -> Image.Image:
    """Open an image without decoding it; raise ImageError for one that would cost too much."""
    start = stream.read(heic.START_BYTES)
    stream.seek(0)
    found = heic.is_heic(start)
    if start.startswith(b"\0\0\1\0"):
        check_icon(stream)
    elif start[4:8] == b"ftyp" and not found:
        check_avif(stream)
    elif start[:2] in (b"II", b"MM"):
        check_tags(stream)
    limits = {}
    if start[4:8] == b"ftyp" or start.startswith(b"RIFF"):  # these plugins read the whole file
        limits["limit_bytes"] = 2 * MAX_WHOLE_FILE
        check_size(stream)
    elif start.startswith(PngImagePlugin._MAGIC):
        limits["call_bytes"] = _PNG_CALL_BYTES
    header = HeaderStream(stream, **limits)
    image: Image.Image = heic.open_heic(stream, header=header) if found else Image.open(header, formats=formats())  # type: ignore[arg-type]
    header.release()
    check_pixels(*image.size, bytes_needed=bytes_needed(image))
    return image


def bytes_needed(image: Image.Image) -> float:
    """Return the maximum memory for decoding in bytes, including the result with up to four channels."""
    second = 4 * image.width * image.height if needs_second(image) else 0
    return _bytes_once(image) + second


def _bytes_once(image: Image.Image) -> float:
    width, height = image.size
    pixels = width * height
    needed: float = pixels * BYTES_PER_PIXEL
    if image.format in _DECODER_BYTES:
        needed += pixels * _DECODER_BYTES[image.format]
        if image.format == "AVIF" and getattr(image, "tile", None):  # its pixels are not decoded yet
            needed += max(0, _avif_bytes(image.fp) - pixels * _AVIF_PLANES)  # type: ignore[attr-defined]
        return needed
    if image.format in JPEG_FORMATS and image.info.get("progressive"):
        return max(needed, pixels * (4 + jpeg_scans.coefficient_bytes(image.layer)))  # type: ignore[attr-defined]
    if image.format == "HEIF":
        return max(needed, heic.heic_bytes(image))
    if image.format == "TIFF":
        return max(needed, pixels * 4 + strip_bytes(image))
    if any(tile[0] in _PYTHON_DECODERS for tile in getattr(image, "tile", ())[:1]):
        return needed * _PYTHON_SHARE * len(image.getbands())
    return needed


def _avif_bytes(stream: Any) -> float:
    place = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(place)
    return avif.stream_bytes(data)


def decoding_bytes(image: Any, stream: BinaryIO, *, reduction: int = 1) -> float:
    """Return the exact value of `bytes_needed`: if the header is not enough, the whole file is searched.

    The sides of a JPEG file are divided by `reduction`; coefficients, if the decoder keeps them, are of full size.
    Raises ImageError for a file that would take too much memory or, with too many scans, too much time.
    """
    needed, (width, height) = bytes_needed(image), image.size
    if image.format in JPEG_FORMATS:
        decoded = width * height / reduction**2
        needed = decoded * BYTES_PER_PIXEL
        if jpeg_scans.check_scans(stream, pixels=width * height) or image.info.get("progressive"):
            needed = max(needed, decoded * 4 + width * height * jpeg_scans.coefficient_bytes(image.layer))
            check_pixels(width, height, bytes_needed=needed)
    elif image.format == "JPEG2000":
        needed = max(needed, jpeg2000.check_codestream(stream))
    return needed


def reduce_(image: Any, reduction: int) -> None:
    """Set a JPEG image that is not decoded yet to be decoded with both sides divided by 1, 2, 4 or 8, rounded up."""
    if reduction > 1:
        image.draft(image.mode, (image.width // reduction, image.height // reduction))


def load_image(image: Any) -> None:
    """Decode the pixels of an image opened by `open_image`."""
    if image.format == "TIFF":
        # Otherwise Pillow would read every tag of every directory, which is not needed, and there may be millions.
        image.is_animated = True
        image.tile = [tile._replace(args=_native(tile.args)) if tile[0] == "libtiff" else tile for tile in image.tile]
    elif image.format == "PPM" and image.tile[0][0] == "ppm":
        _load_ppm(image)
    elif image.format == "PNG":
        image.png.read = _counted(image.png.read)
    image.load()


def _native(args: Any) -> Any:
    """Return the arguments of libtiff's decoder with its byte order, the machine's, which Pillow forgets for these."""
    return (_NATIVE_ORDER.get(args[0], args[0]), *args[1:])


def orientation_of(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8, without decoding; 1 if there is none, or Pillow has applied it already."""
    if image.format == "TIFF":  # Pillow turns TIFF upright itself
        return 1
    try:
        if image.format == "PNG" and "exif" not in image.info and getattr(image, "tile", None):
            _read_late_chunks(image)
        if len(image.info.get("exif") or b"") > MAX_EXIF_BYTES:
            return 1
        # The PNG plugin's own method decodes the image to find the metadata after it.
        value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def _load_ppm(image: Any) -> None:
    """Decode a PPM with an uncommon maximum as Pillow does, but without its slow Python loop over all values.

    Source: PIL.PpmImagePlugin.PpmDecoder.
    """
    _, _, place, (_, largest) = image.tile[0]
    width, height = image.size
    stored, wanted = ("u1" if largest < 256 else ">u2"), (np.int32 if image.mode == "I" else np.uint8)
    top = 65535 if image.mode == "I" else 255
    numbers = range(256 if stored == "u1" else 65536)
    table = np.array([min(top, round(value / largest * top)) for value in numbers], wanted)
    values = np.empty(width * height * len(image.getbands()), wanted)
    image.fp.seek(place)
    for start in range(0, values.size, _PIECE_VALUES):
        part = values[start : start + _PIECE_VALUES]
        read = np.frombuffer(image.fp.read(part.size * np.dtype(stored).itemsize), np.uint8)
        if read.size < part.size * np.dtype(stored).itemsize:
            raise ValueError("not enough image data")
        part[:] = table[read.view(stored)]
    image.im = Image.frombuffer(image.mode, image.size, values, "raw", image.mode, 0, 1).im
    image.tile = []


def _counted(read: Callable[[], _Chunk]) -> Callable[[], _Chunk]:
    """Return Pillow's reader of the next PNG chunk, limited to more chunks than any image has."""
    pixels_left, others_left = _MOST_DATA_CHUNKS, _MOST_PNG_CHUNKS

    def counted() -> _Chunk:
        nonlocal pixels_left, others_left
        chunk = read()
        if chunk[0] in _PIXEL_CHUNKS:
            pixels_left -= 1
        else:
            others_left -= 1
        if min(pixels_left, others_left) < 0:
            raise ImageError(
                f"it must have at most {_MOST_DATA_CHUNKS:,} PNG chunks of pixels and {_MOST_PNG_CHUNKS} others; "
                "it has more: save it again"
            )
        return chunk

    return counted


def _read_late_chunks(image: Any) -> None:
    """Read the metadata after the pixels of a PNG, which may hold EXIF, as PngImageFile.load_end does."""
    png, stream = image.png, image.fp
    read, length = _counted(png.read), png.im_idat
    while True:
        stream.seek(length + 4, os.SEEK_CUR)
        kind, place, length = read()
        if kind == b"IEND" or (kind == b"fcTL" and image.is_animated):
            return
        if kind in _PIXEL_CHUNKS:
            continue
        try:
            png.call(kind, place, length)
            length = 0
        except AttributeError:  # a kind unknown to Pillow, of which nothing was read
            continue
