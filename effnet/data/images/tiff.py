"""Read what Pillow does not of TIFF: any number of bands in a page, and pages of one size as bands."""

import io
import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from effnet.data.images.limits import MAX_PIXELS, check_pixels
from effnet.data.images.opening import load_image, open_image, read_whole
from effnet.errors import ImageError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_SUBFILE = 254
# Bytes and struct's letter of a number of each type; the others are not needed.
_TYPES = {1: (1, "B"), 3: (2, "H"), 4: (4, "L"), 16: (8, "Q")}
_NEEDED = frozenset({
    _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR,
    _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT,
})  # fmt: skip
# No real file comes near these.
_MOST_TAGS, _MOST_VALUES, _MOST_PAGES, _MOST_BANDS = 500, 400_000, 1024, 1024
# Compressions that know nothing of bands: none, LZW, deflate, PackBits, deflate again, LZMA, Zstandard.
_COMPRESSIONS = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
# Sample format and bits that Pillow reads in grey.
_KINDS = {
    (1, 8): "uint8", (1, 16): "uint16", (2, 16): "int16", (1, 32): "uint32", (2, 32): "int32", (3, 32): "float32",
}  # fmt: skip
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_REDUCED, _MASK = 1, 4

_Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """A TIFF file whose `channels` are bands of one page or, with `pages`, its pages.

    `pages` are the places of the pages' directories in the file. If not `needed`, Pillow reads the file too: the first
    page, or red, green and blue.
    """

    height: int
    width: int
    channels: int
    kind: str
    needed: bool
    pages: tuple[int, ...] = ()

    @property
    def bytes_needed(self) -> float:
        """The memory that reading takes: the numbers, twice, and the pixels."""
        return self.height * self.width * self.channels * (2 * np.dtype(self.kind).itemsize + 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """The byte order and the sizes of a file: `long` is struct's letter of its offsets."""

    order: str
    long: str

    @property
    def head(self) -> int:
        """The place of the first directory's offset."""
        return 8 if self.long == "Q" else 4

    def number(self, letter: str, data: bytes, place: int = 0) -> int:
        return int(struct.unpack_from(f"{self.order}{letter}", data, place)[0])


def find_bands(stream: BinaryIO) -> Bands | None:
    """Return the bands of a TIFF file, from its directories, or None if it is another file, or has no bands.

    None too for a damaged directory, which Pillow reports.
    """
    try:
        return _find(stream)
    except (struct.error, ValueError, KeyError, OSError):
        return None
    finally:
        stream.seek(0)


def read_bands(stream: BinaryIO, bands: Bands) -> np.ndarray:
    """Return the values [height, width, channels]; raise ImageError for a compression that is not read."""
    data = io.BytesIO(read_whole(stream))
    form, first = _form(data)
    assert form is not None
    if bands.pages:
        planes = [_page(data, form, place, bands) for place in bands.pages]
        return np.stack(planes, axis=-1)
    tags = _directory(data, form, first)[0]
    if tags.get(_PLANAR, (1,))[0] == 2:
        return np.stack([_plane(data, form, tags, i, bands) for i in range(bands.channels)], axis=-1)
    return _chunky(data, form, tags, bands)


def _find(stream: BinaryIO) -> Bands | None:
    form, place = _form(stream)
    if form is None:
        return None
    tags, following = _directory(stream, form, place)
    samples = tags.get(_SAMPLES, (1,))[0]
    if samples == 1:
        return _find_pages(stream, form, place, tags, following)
    kind, photometric = _kind(tags), tags[_PHOTOMETRIC][0]
    if kind is None or photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or samples > _MOST_BANDS:
        return None
    height, width = tags[_HEIGHT][0], tags[_WIDTH][0]
    extra, planar = tags.get(_EXTRA, ()), tags.get(_PLANAR, (1,))[0]
    is_alpha = bool(extra) and extra[0] in (1, 2) and len(extra) == 1
    colours = photometric == _RGB and kind in ("uint8", "uint16") and (planar == 1 or kind == "uint8")
    usual = (colours and samples in (3, 4)) or (photometric == _BLACK_IS_ZERO and samples == 2 and kind == "uint8")
    if usual and (samples == 3 or is_alpha):
        return None
    return Bands(height=height, width=width, channels=samples, kind=kind, needed=not usual)


def _find_pages(stream: BinaryIO, form: _Form, place: int, tags: _Tags, following: int) -> Bands | None:
    """Return the pages of a file as bands if there are several, all grey and of the same size and type."""
    kind, places = _kind(tags), [place]
    if kind is None or tags[_PHOTOMETRIC][0] not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return None
    same = (_WIDTH, _HEIGHT, _PHOTOMETRIC)
    while following:
        if following in places or len(places) == _MOST_PAGES:
            return None
        places.append(following)
        other, following = _directory(stream, form, following)
        if other.get(_SUBFILE, (0,))[0] & (_REDUCED | _MASK) or other.get(_SAMPLES, (1,))[0] != 1:
            return None
        if _kind(other) != kind or any(other.get(tag) != tags.get(tag) for tag in same):
            return None
    if len(places) == 1:
        return None
    size = {"height": tags[_HEIGHT][0], "width": tags[_WIDTH][0]}
    return Bands(**size, channels=len(places), kind=kind, needed=False, pages=tuple(places))


def _form(stream: BinaryIO) -> tuple[_Form | None, int]:
    """Return the form of a TIFF file and the place of its first directory; None for another file."""
    stream.seek(0)
    start = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16:
        return None, 0
    version = struct.unpack_from(f"{order}H", start, 2)[0]
    if version not in (42, 43) or (version, order) == (43, ">"):  # Pillow does not read the last
        return None, 0
    form = _Form(order=order, long="L" if version == 42 else "Q")
    return form, form.number(form.long, start, form.head)


def _directory(stream: BinaryIO, form: _Form, place: int) -> tuple[_Tags, int]:
    """Return the needed tags of a directory, and the place of the next one; raise ValueError if it is damaged."""
    stream.seek(place)
    size = struct.calcsize(f"={form.long}")
    counter = "H" if form.long == "L" else "Q"
    number = form.number(counter, stream.read(struct.calcsize(f"={counter}")))
    if number > _MOST_TAGS:
        raise ValueError("too many tags")
    entries = stream.read(number * (4 + 2 * size) + size)
    tags: _Tags = {}
    for start in range(0, number * (4 + 2 * size), 4 + 2 * size):
        tag, kind = struct.unpack_from(f"{form.order}HH", entries, start)
        count = form.number(form.long, entries, start + 4)
        if tag not in _NEEDED or kind not in _TYPES:
            continue
        width, letter = _TYPES[kind]
        if not 1 <= count <= _MOST_VALUES:
            raise ValueError("too many values")
        data = entries[start + 4 + size : start + 4 + 2 * size]
        if count * width > size:
            stream.seek(form.number(form.long, data))
            data = stream.read(count * width)
        tags[tag] = struct.unpack_from(f"{form.order}{count}{letter}", data)
    return tags, form.number(form.long, entries, number * (4 + 2 * size))


def _kind(tags: _Tags) -> str | None:
    """Return the type of the values, or None if the bands differ or it is none that is read."""
    bits, formats = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    return _KINDS.get((formats.pop(), bits.pop())) if len(bits) == len(formats) == 1 else None


def _page(data: io.BytesIO, form: _Form, place: int, bands: Bands) -> np.ndarray:
    """Return one page, as Pillow reads it if it comes first."""
    data.seek(form.head)
    data.write(struct.pack(f"{form.order}{form.long}", place))
    return _grey(data, (bands.height, bands.width), bands.kind)


def _plane(data: io.BytesIO, form: _Form, tags: _Tags, band: int, bands: Bands) -> np.ndarray:
    """Return one band of a file that stores them one after the other."""
    own = {tag: values for tag, values in tags.items() if tag != _EXTRA}
    for tag in (_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS):
        if tag in tags:
            each = len(tags[tag]) // bands.channels
            own[tag] = tags[tag][band * each : (band + 1) * each]
    return _as_grey(data, form, own, (bands.height, bands.width), bands.kind)


def _chunky(data: io.BytesIO, form: _Form, tags: _Tags, bands: Bands) -> np.ndarray:
    """Return the bands of a file that stores them pixel by pixel: a grey image of as many times the width."""
    compression, predictor = tags.get(_COMPRESSION, (1,))[0], tags.get(_PREDICTOR, (1,))[0]
    if compression not in _COMPRESSIONS:
        raise ImageError(
            f"a TIFF file of {bands.channels} bands must not be compressed as type {compression}: save it with deflate "
            "or uncompressed"
        )
    own = {tag: values for tag, values in tags.items() if tag != _EXTRA}
    step = tags[_TILE_WIDTH][0] if _TILE_WIDTH in tags else bands.width
    width = -(-bands.width // step) * step  # of whole tiles, as differences begin again in each
    own |= {_WIDTH: (width * bands.channels,), _PREDICTOR: (1,)}
    if _TILE_WIDTH in tags:
        own[_TILE_WIDTH] = (step * bands.channels,)
    values = _as_grey(data, form, own, (bands.height, width * bands.channels), bands.kind)
    values = values.reshape(bands.height, width, bands.channels)
    if predictor != 1 and compression not in (1, 32773):  # these have none
        parts = [values[:, start : start + step] for start in range(0, width, step)]
        values = np.concatenate([_summed(part, predictor, form.order) for part in parts], axis=1)
    return values[:, : bands.width]


def _summed(part: np.ndarray, predictor: int, order: str) -> np.ndarray:
    """Return values [height, width, bands] from their differences, or those of their bytes, along the width.

    Source: TIFF 6.0, section 14; Adobe Photoshop TIFF technical note 3.
    """
    height, width, channels = part.shape
    if predictor == 2:
        return np.cumsum(part, axis=1, dtype=part.dtype)
    if predictor != 3 or part.dtype != np.float32:
        raise ImageError(
            f"the predictor of a TIFF file must be 1, 2 or, of floats, 3; it is {predictor}: save it again"
        )
    stored = np.ascontiguousarray(part).astype(f"{order}f4").view(np.uint8).reshape(height, -1, channels)
    planes = np.cumsum(stored, axis=1, dtype=np.uint8).reshape(height, 4, width * channels)
    whole = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(">f4")
    return whole.astype(np.float32).reshape(height, width, channels)


def _as_grey(data: io.BytesIO, form: _Form, tags: _Tags, size: tuple[int, int], kind: str) -> np.ndarray:
    """Return the image [height, width] of these tags, of one sample; they are written behind the file."""
    # Pillow reads unsigned 32 bits in one byte order only.
    number, bits = next(key for key, name in _KINDS.items() if name == kind.replace("uint32", "int32"))
    own = tags | {_BITS: (bits,), _SAMPLES: (1,), _FORMAT: (number,), _PHOTOMETRIC: (_BLACK_IS_ZERO,), _PLANAR: (1,)}
    data.seek(0, io.SEEK_END)
    place = data.tell()
    data.write(_written(own, form, place))
    data.seek(form.head)
    data.write(struct.pack(f"{form.order}{form.long}", place))
    return _grey(data, size, kind)


def _written(tags: _Tags, form: _Form, place: int) -> bytes:
    """Return a directory with these tags, to stand at `place`, and behind it the values that need more room."""
    size = struct.calcsize(f"={form.long}")
    entries, behind = b"", b""
    end = place + (2 if form.long == "L" else 8) + len(tags) * (4 + 2 * size) + size
    for tag in sorted(tags):
        body = struct.pack(f"{form.order}{len(tags[tag])}{form.long}", *tags[tag])
        entries += struct.pack(f"{form.order}HH{form.long}", tag, 4 if form.long == "L" else 16, len(tags[tag]))
        if len(body) > size:
            entries += struct.pack(f"{form.order}{form.long}", end + len(behind))
            behind += body
        else:
            entries += body
    head = struct.pack(f"{form.order}{'H' if form.long == 'L' else 'Q'}", len(tags))
    return head + entries + struct.pack(f"{form.order}{form.long}", 0) + behind


def _grey(data: io.BytesIO, size: tuple[int, int], kind: str) -> np.ndarray:
    data.seek(0)
    with open_image(data) as image:
        load_image(image)
        values: Any = np.asarray(image)
    if values.shape != size:
        raise ImageError(f"its bands must have {size[1]} x {size[0]} pixels; one has {values.shape[1::-1]}")
    if kind == "uint32":
        return values.view(np.uint32)
    return values.astype(kind, copy=False)


def check_bands(bands: Bands) -> None:
    """Raise ImageError if a file has more pixels, or numbers, than an image may have."""
    check_pixels(bands.width, bands.height)
    if math.prod((bands.height, bands.width, bands.channels)) > 4 * MAX_PIXELS:
        raise ImageError(
            f"TIFF may hold at most {4 * MAX_PIXELS:,} values, it has {bands.channels} bands: make it smaller"
        )
