"""Check the memory that a JPEG 2000 file makes its decoder allocate, which its size in pixels does not show.

Source: ISO/IEC 15444-1, annex A.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from effnet.data.images.limits import check_pixels
from effnet.errors import ImageError

# The size of image and tiles (SIZ), and the coding style of all components (COD) and of one (COC).
_SEGMENT = re.compile(rb"\xff([\x51-\x53])")
_SIZE, _STYLE = 0x51, 0x52
_LONGEST = 4096
_BLOCK = 2**20
# Bytes that OpenJPEG 2.5 needs for each of these, rounded up.
_TILE_BYTES, _PRECINCT_BYTES, _BLOCK_BYTES = 16_000, 2_000, 250
_MOST_COMPONENTS = 4
_MOST_LEVELS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    width: int
    height: int
    tile_width: int
    tile_height: int
    samples: tuple[int, ...]

    @property
    def tiles(self) -> int:
        return math.ceil(self.width / self.tile_width) * math.ceil(self.height / self.tile_height)


def check_codestream(stream: BinaryIO) -> float:
    """Return the bytes needed to decode the file; raise ImageError if that is too much.

    All segments of the whole file are checked, wherever they are, as the decoder might find others than Pillow.
    """
    place = stream.tell()
    stream.seek(0)
    sizes, styles = [], []
    for kind, body in _segments(stream):
        if kind == _SIZE and (found := _read_size(body)):
            sizes.append(found)
        elif kind != _SIZE and (style := _read_style(kind, body)):
            styles.append(style)
    stream.seek(place)
    if not sizes:
        raise ImageError("a JPEG 2000 file must declare its size; it does not")
    most = 0.0
    for found in sizes:
        bytes_needed: float = found.width * found.height * 4 + found.tiles * _TILE_BYTES
        area = min(found.width, found.tile_width) * min(found.height, found.tile_height)
        # OpenJPEG keeps 32 bits per sample, Pillow a copy of the stored width.
        bytes_needed += area * sum(4 + (1 if bits <= 8 else 2 if bits <= 16 else 4) for bits in found.samples)
        bytes_needed += len(found.samples) * max((_overhead(found, area, style) for style in styles), default=0)
        check_pixels(found.width, found.height, bytes_needed=bytes_needed)
        most = max(most, bytes_needed)
    return most


def _segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the kind of each possible segment, and as many bytes after its marker as a segment can have."""
    kept = b""
    while block := stream.read(_BLOCK):
        data = kept + block
        is_last = len(block) < _BLOCK
        end = len(data) if is_last else len(data) - _LONGEST
        for found in _SEGMENT.finditer(data, 0, max(0, end)):
            yield found[1][0], data[found.end() : found.end() + _LONGEST]
        kept = b"" if is_last else data[max(0, end - 1) :]


def _read_size(body: bytes) -> _Size | None:
    """Return the contents of a SIZ segment, or None if these bytes are not one."""
    if len(body) < 38:
        return None
    length, _, right, lower, left, upper, tile_width, tile_height, _, _, components = struct.unpack_from(
        ">HHIIIIIIIIH", body
    )
    if length != 38 + 3 * components or not components or right <= left or lower <= upper:
        return None
    if components > _MOST_COMPONENTS:
        raise ImageError(f"a JPEG 2000 file must have at most {_MOST_COMPONENTS} components; it has {components}")
    if not tile_width or not tile_height:
        return None
    bits = tuple((body[38 + 3 * i] & 0x7F) + 1 for i in range(components) if 38 + 3 * i < len(body))
    return _Size(width=right - left, height=lower - upper, tile_width=tile_width, tile_height=tile_height, samples=bits)


def _read_style(kind: int, body: bytes) -> tuple[int, list[int]] | None:
    """Return log2 of a code block's area and the precinct sizes of each resolution, or None if it is not a style."""
    # After the length: in COD the style, and four bytes on progression; in COC the component and the style.
    start = 3 + 4 if kind == _STYLE else 4
    style_place = 2 if kind == _STYLE else 3
    if len(body) < start + 5:
        return None
    levels = body[start]
    own_precincts = body[style_place] & 1
    length = start + 5 + (levels + 1 if own_precincts else 0)
    if levels > _MOST_LEVELS or int.from_bytes(body[:2], "big") != length or len(body) < length:
        return None
    block = (body[start + 1] & 15) + (body[start + 2] & 15) + 4
    precincts = list(body[start + 5 : length]) if own_precincts else [0xFF] * (levels + 1)
    return block, precincts


def _overhead(size: _Size, area: int, style: tuple[int, list[int]]) -> float:
    """Return the bytes that the decoder keeps for the precincts and code blocks of a component of one tile."""
    block, precincts = style
    wide, high = min(size.width, size.tile_width), min(size.height, size.tile_height)
    number = 0
    for resolution, exponents in enumerate(precincts):
        scale = 2.0 ** (len(precincts) - 1 - resolution)
        number += math.ceil(wide / scale / 2 ** (exponents & 15)) * math.ceil(high / scale / 2 ** (exponents >> 4))
    return number * _PRECINCT_BYTES + area / 2**block * _BLOCK_BYTES
