"""Check headers for costs in Pillow and its decoders that the image size does not show."""

import os
import struct
from typing import Any, BinaryIO

from PIL import BmpImagePlugin, IcoImagePlugin, PngImagePlugin, TiffImagePlugin

from effnet.data.images import avif
from effnet.data.images.limits import MAX_EXIF_BYTES, MAX_WHOLE_FILE, HeaderStream
from effnet.errors import ImageError

# Icons are decoded when they are opened; the format's own limit is 256 x 256.
_MOST_ICON_PIXELS = 2**22
# The most numbers that a tag of a TIFF file needs: offsets of tiles of 16 x 16 pixels, and colour tables.
_MOST_TAG_VALUES = 400_000
_BYTE_TYPES = frozenset({1, 2, 6, 7})


def check_size(stream: BinaryIO) -> None:
    """Raise ImageError for a file that is larger than any image that is read whole needs to be."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size > MAX_WHOLE_FILE:
        raise ImageError(f"it must have at most {MAX_WHOLE_FILE:,} bytes; it has {size:,}: save it smaller")


def check_icon(stream: BinaryIO) -> None:
    """Raise ImageError for an icon with a large image, whatever its directory says: Pillow decodes it on opening."""
    try:
        entries = IcoImagePlugin.IcoFile(HeaderStream(stream)).entry  # type: ignore[arg-type]
        if not entries:
            return
        stream.seek(entries[0].offset)
        is_png = stream.read(8) == PngImagePlugin._MAGIC
        stream.seek(entries[0].offset)
        plugin = PngImagePlugin.PngImageFile if is_png else BmpImagePlugin.DibImageFile
        width, height = plugin(HeaderStream(stream)).size  # type: ignore[arg-type]
    except (SyntaxError, IndexError, TypeError, struct.error):  # Pillow will report it
        return
    finally:
        stream.seek(0)
    if width * height > _MOST_ICON_PIXELS:
        raise ImageError(f"an icon must have at most {_MOST_ICON_PIXELS:,} pixels; it has {width} x {height}")


def check_avif(stream: BinaryIO) -> None:
    """Raise ImageError for a file whose streams cannot be measured, or whose EXIF block is far too long for Pillow."""
    check_size(stream)
    data = stream.read()
    stream.seek(0)
    try:  # before libavif, which needs 16 bytes for extents that take none in the file
        avif.stream_bytes(data)
        damage = ""
    except (ValueError, struct.error) as error:
        damage = str(error)
    try:
        from PIL import AvifImagePlugin  # in Pillow since 11.3

        decoder = AvifImagePlugin._avif.AvifDecoder(data, AvifImagePlugin.DECODE_CODEC_CHOICE, 1)
        exif = decoder.get_info()[4]
    except Exception:  # Pillow will report it
        return
    if damage:
        raise ImageError(f"the boxes and streams of an AVIF file must be complete; {damage}: save it again")
    if len(exif or b"") > MAX_EXIF_BYTES:
        raise ImageError("its EXIF metadata are too long; save it again without them")


def check_tags(stream: BinaryIO) -> None:
    """Raise ImageError for a TIFF file with a tag of millions of numbers: each would become a Python object."""
    header = stream.read(8)
    header += stream.read(8) if header[2:3] == b"+" else b""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(directory.next)
        directory.load(HeaderStream(stream))  # type: ignore[arg-type]
    except (SyntaxError, IndexError, TypeError, struct.error):  # it is not a TIFF file, or damaged
        return
    finally:
        stream.seek(0)
    for tag, data in directory._tagdata.items():
        kind = directory.tagtype[tag]
        count = len(data) // directory._load_dispatch[kind][0]
        if kind not in _BYTE_TYPES and count > _MOST_TAG_VALUES:
            raise ImageError(f"a tag must have at most {_MOST_TAG_VALUES:,} values; tag {tag} has {count:,}")


def strip_bytes(image: Any) -> float:
    """Return the bytes that libtiff needs for one strip or tile of a file, as stored and as RGBA."""
    if not image.use_load_libtiff:
        return 0
    tags, (width, height) = image.tag_v2, getattr(image, "_tile_size", image.size)
    tile = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    rows = tags.get(TiffImagePlugin.ROWSPERSTRIP, height)
    if not isinstance(rows, int) or not all(side is None or isinstance(side, int) for side in tile):
        raise ImageError("the sizes of its strips and tiles must be single numbers")
    area = width * min(rows, height) if None in tile else tile[0] * tile[1]
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    samples = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, len(bits))
    return area * (4 + max(bits) * samples / 8)
