"""Opens image files with Pillow: what a file can cost is checked before anything is decoded."""

import functools
import io
import os
import stat
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from PIL import AvifImagePlugin, BmpImagePlugin, IcoImagePlugin, Image, PngImagePlugin, TiffImagePlugin

from effnet.data import jpeg2000, jpeg_scans
from effnet.data.limits import (
    BYTES_PER_PIXEL,
    MAX_EXIF_BYTES,
    MAX_PIXELS,
    MAX_WHOLE_FILE,
    HeaderStream,
    check_pixels,
)
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
    "ICO": frozenset({".ico"}),
    "NPY": frozenset({".npy"}),
}
"""The formats that are read. Other Pillow plugins are not tried: EPS runs a program, TGA accepts noise."""

Source = str | os.PathLike[str] | bytes

_PILLOW_DEFAULT_LIMIT = 1024**3 // 4 // 3
if _PILLOW_DEFAULT_LIMIT == Image.MAX_IMAGE_PIXELS:
    # Pillow would print a warning for images between its limit and ours, from every thread that decodes.
    # Filtering warnings is not safe in threads, so its default is raised; a limit set by the user stays.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# What a decoder takes a pixel beside Pillow's image and the result, which `BYTES_PER_PIXEL` counts; measured with
# every mode, see tests/data/test_limits.py. WebP keeps two canvases and a copy, AVIF planes of up to 16 bits and two
# copies.
_DECODER_BYTES = {"WEBP": 10, "AVIF": 10}
# Pillow decodes these in Python, a few million values a second; the files that people have are far smaller.
_PYTHON_DECODERS = frozenset({"ppm", "ppm_plain", "bmp_rle"})
_PYTHON_SHARE = 8
# Icons are decoded when they are opened; the format's own limit is 256 x 256.
_MOST_ICON_PIXELS = 2**22
# A tag of a TIFF file has so many numbers at most: offsets of tiles of 16 x 16 pixels, and colour tables.
_MOST_TAG_VALUES = 400_000
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_MOST_LATE_CHUNKS = 1000
_MOST_DATA_CHUNKS = 500_000
_EXIF_ORIENTATION = 0x0112


def open_stream(source: Source) -> BinaryIO:
    """Opens a regular file or bytes for reading; raises ImageError where it is empty or no file, or OSError."""
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


def read_whole(stream: BinaryIO) -> bytes:
    """Returns the rest of the file; raises ImageError where it is larger than any such image needs."""
    data = stream.read(MAX_WHOLE_FILE + 1)
    if len(data) > MAX_WHOLE_FILE:
        raise ImageError(f"it must have at most {MAX_WHOLE_FILE:,} bytes; it has more: save it smaller")
    return data


@functools.cache
def formats() -> tuple[str, ...]:
    """Returns the names of the formats that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMAT_SUFFIXES if name in Image.OPEN)


def open_picture(stream: BinaryIO) -> Image.Image:
    """Opens an image, nothing of which is decoded yet; raises ImageError for one that would cost too much."""
    start = stream.read(16)
    stream.seek(0)
    if start.startswith(b"\0\0\1\0"):
        _check_icon(stream)
    elif start[4:8] == b"ftyp":
        _check_avif(stream)
    elif start[:2] in (b"II", b"MM"):
        _check_tags(stream)
    limit = {"limit_bytes": 2 * MAX_WHOLE_FILE} if start[4:8] == b"ftyp" or start.startswith(b"RIFF") else {}
    if limit:  # these two plugins read the whole file
        _check_size(stream)
    header = HeaderStream(stream, **limit)
    picture = Image.open(header, formats=formats())  # type: ignore[arg-type]
    header.release()
    check_pixels(*picture.size, bytes_needed=bytes_needed(picture))
    return picture


def bytes_needed(picture: Image.Image) -> float:
    """Returns the most memory that decoding takes, the result of up to four channels among it."""
    width, height = picture.size
    pixels = width * height
    needed = pixels * BYTES_PER_PIXEL
    if picture.format in _DECODER_BYTES:
        return needed + pixels * _DECODER_BYTES[picture.format]
    if picture.format in ("JPEG", "MPO") and picture.info.get("progressive"):
        return max(needed, pixels * (4 + jpeg_scans.coefficient_bytes(picture.layer)))
    if picture.format == "TIFF":
        return needed + _strip_bytes(picture)
    if any(tile[0] in _PYTHON_DECODERS for tile in getattr(picture, "tile", ())[:1]):
        return needed * _PYTHON_SHARE
    return needed


def decoding_bytes(picture: Any, stream: BinaryIO) -> float:
    """Returns what `bytes_needed` does, exactly: where the header does not tell, the whole file is searched.

    Raises ImageError for a file that would take too much memory or, of scans without number, too much time.
    """
    needed, (width, height) = bytes_needed(picture), picture.size
    if picture.format in ("JPEG", "MPO"):
        if jpeg_scans.check_scans(stream, pixels=width * height):
            needed = max(needed, width * height * (4 + jpeg_scans.coefficient_bytes(picture.layer)))
            check_pixels(width, height, bytes_needed=needed)
    elif picture.format == "JPEG2000":
        needed = max(needed, jpeg2000.check_codestream(stream))
    return needed


def load_picture(picture: Any) -> None:
    """Decodes the pixels of what `open_picture` opened."""
    if picture.format == "TIFF":
        # Pillow would read every tag of every directory within, which nobody asked for, and which may have millions.
        picture.is_animated = True
    elif picture.format == "PNG":
        picture.png.call = _counted(picture.png.call)
    picture.load()


def orientation_of(picture: Image.Image) -> int:
    """Returns EXIF's orientation, 1 to 8, without decoding; 1 where there is none, or Pillow has heeded it."""
    if picture.format == "TIFF":  # Pillow turns TIFF upright itself
        return 1
    try:
        if picture.format == "PNG" and "exif" not in picture.info and getattr(picture, "tile", None):
            _read_late_chunks(picture)
        if len(picture.info.get("exif") or b"") > MAX_EXIF_BYTES:
            return 1
        # A PNG plugin's own method decodes the image to find what stands behind it.
        value = Image.Image.getexif(picture).get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def _check_size(stream: BinaryIO) -> None:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size > MAX_WHOLE_FILE:
        raise ImageError(f"it must have at most {MAX_WHOLE_FILE:,} bytes; it has {size:,}: save it smaller")


def _check_icon(stream: BinaryIO) -> None:
    """Raises ImageError for an icon whose image, which Pillow decodes at once, is large, whatever its directory says."""
    try:
        entries = IcoImagePlugin.IcoFile(HeaderStream(stream)).entry
        if not entries:
            return
        stream.seek(entries[0].offset)
        is_png = stream.read(8) == PngImagePlugin._MAGIC
        stream.seek(entries[0].offset)
        plugin = PngImagePlugin.PngImageFile if is_png else BmpImagePlugin.DibImageFile
        width, height = plugin(HeaderStream(stream)).size
    except (SyntaxError, IndexError, TypeError, struct.error):  # Pillow will say the same, of all its formats
        return
    finally:
        stream.seek(0)
    if width * height > _MOST_ICON_PIXELS:
        raise ImageError(f"an icon must have at most {_MOST_ICON_PIXELS:,} pixels, it holds {width} x {height}")


def _check_avif(stream: BinaryIO) -> None:
    """Raises ImageError for a block of EXIF that is far too long, all of which Pillow would take apart."""
    if not AvifImagePlugin.SUPPORTED:
        return
    _check_size(stream)
    try:
        decoder = AvifImagePlugin._avif.AvifDecoder(stream.read(), AvifImagePlugin.DECODE_CODEC_CHOICE, 1)
        exif = decoder.get_info()[4]
    except Exception:  # Pillow will say the same
        exif = None
    stream.seek(0)
    if len(exif or b"") > MAX_EXIF_BYTES:
        raise ImageError("its EXIF metadata are too long; save it again without them")


def _check_tags(stream: BinaryIO) -> None:
    """Raises ImageError for a TIFF file with a tag of millions of numbers, which would become as many objects."""
    header = stream.read(8)
    header += stream.read(8) if header[2:3] == b"+" else b""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(directory.next)
        directory.load(HeaderStream(stream))
    except (SyntaxError, IndexError, TypeError, struct.error):  # it is no TIFF file, or damaged
        return
    finally:
        stream.seek(0)
    for tag, data in directory._tagdata.items():
        kind = directory.tagtype[tag]
        count = len(data) // directory._load_dispatch[kind][0]
        if kind not in _BYTE_TYPES and count > _MOST_TAG_VALUES:
            raise ImageError(f"a tag must have at most {_MOST_TAG_VALUES:,} values; tag {tag} has {count:,}")


def _strip_bytes(picture: Any) -> float:
    """Returns what libtiff takes for one strip or tile of a file, as it is stored and as it becomes RGBA."""
    if not picture.use_load_libtiff:
        return 0
    tags, (width, height) = picture.tag_v2, picture._tile_size
    tile = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    rows = tags.get(TiffImagePlugin.ROWSPERSTRIP, height)
    if not isinstance(rows, int) or not all(side is None or isinstance(side, int) for side in tile):
        raise ImageError("the sizes of its strips and tiles must be single numbers")
    area = width * min(rows, height) if None in tile else tile[0] * tile[1]
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    samples = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, len(bits))
    return area * (4 + max(bits) * samples / 8)


def _counted(call: Callable[..., bytes]) -> Callable[..., bytes]:
    """Returns Pillow's reader of PNG chunks, which stops at more chunks than any image has beside its pixels."""
    left = _MOST_LATE_CHUNKS

    def counted(kind: bytes, place: int, length: int) -> bytes:
        nonlocal left
        left -= kind not in (b"IDAT", b"fdAT")
        if left < 0:
            raise ImageError(f"it must have at most {_MOST_LATE_CHUNKS:,} PNG chunks beside its pixels; it has more")
        return call(kind, place, length)

    return counted


def _read_late_chunks(picture: Any) -> None:
    """Reads the metadata that stand behind the pixels of a PNG, which may hold EXIF, as PngImageFile.load_end does."""
    png, stream = picture.png, picture.fp
    call, length = _counted(png.call), png.im_idat
    for _ in range(_MOST_DATA_CHUNKS):
        stream.seek(length + 4, os.SEEK_CUR)
        kind, place, length = png.read()
        if kind == b"IEND" or (kind == b"fcTL" and picture.is_animated):
            return
        if kind in (b"IDAT", b"DDAT", b"fdAT"):
            continue
        try:
            call(kind, place, length)
            length = 0
        except AttributeError:  # a kind that Pillow does not know, nothing of which was read
            continue
