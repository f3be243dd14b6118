"""Estimate the memory that libavif needs for the AV1 streams of an AVIF file, which may exceed its header's size.

Sources: ISO/IEC 14496-12 (boxes and tracks) and ISO/IEC 23008-12 (items).
"""

import struct
from collections.abc import Iterator

from effnet.data.images.av1 import count_parts, measure_stream
from effnet.data.images.bmff import Fields, areas_of, boxes_in, version_of
from effnet.errors import ImageError

# Of boxes, extents and OBUs together: libavif keeps 16 bytes per extent, which may take none in the file.
_MOST_PARTS = 100_000
_PARENTS = frozenset({b"mdia", b"minf", b"stbl"})
_TABLES = frozenset({b"tkhd", b"stsd", b"stsz", b"stco", b"co64"})
_HEADER_BYTES = 512
# dav1d rounds sides up to 128.
_FEW_STREAMS, _SMALLEST_BYTES = 8, 128 * 128 * 6


def stream_bytes(data: bytes) -> float:
    """Return the maximum bytes that libavif needs for the frames of a file, of which it decodes the first.

    Raises ImageError for a file with far too many parts, ValueError for one with damaged boxes or streams.
    """
    view, budget = memoryview(data), [_MOST_PARTS]
    items, tracks = [], []
    for kind, body in boxes_in(view, budget):
        if kind == b"meta":
            items += _items(body[4:], view, budget)
        elif kind == b"moov":
            tracks += [_track(track, view, budget) for name, track in boxes_in(body, budget) if name == b"trak"]
    return max(_needed([found for found in part if found], budget) for part in (items, tracks))


def _needed(streams: list[tuple[bytes | memoryview, int]], budget: list[int]) -> float:
    """Return the bytes needed for streams, each given with the area to which libavif scales it."""
    needed = 0.0
    for stream, shown in streams:
        area, frames, pixel_bytes = measure_stream(stream, budget)
        needed += pixel_bytes * (area * frames + (shown if shown != area else 0))
    return needed + max(0, len(streams) - _FEW_STREAMS) * _SMALLEST_BYTES


def _inner(data: memoryview, budget: list[int]) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the boxes of a container and those nested in it."""
    for kind, body in boxes_in(data, budget):
        yield kind, body
        if kind in _PARENTS:
            yield from _inner(body, budget)


def _items(meta: memoryview, file: memoryview, budget: list[int]) -> list[tuple[bytes | memoryview, int]]:
    """Return the streams of all AV1 items, shown or not, with the area declared by `ispe`."""
    boxes = list(boxes_in(meta, budget))
    stored = next((body for kind, body in boxes if kind == b"idat"), memoryview(b""))
    coded: set[int] = set()
    areas: dict[int, int] = {}
    places: list[tuple[int, int, list[tuple[int, int]]]] = []
    for kind, body in boxes:
        if kind == b"iinf":
            for name, entry in boxes_in(body[6 if version_of(body) == 0 else 8 :], budget):
                if name == b"infe" and version_of(entry) in (2, 3):
                    size = 2 if version_of(entry) == 2 else 4
                    if entry[6 + size : 10 + size] == b"av01":
                        coded.add(int.from_bytes(entry[4 : 4 + size], "big"))
        elif kind == b"iprp":
            areas |= areas_of(list(boxes_in(body, budget)), budget)
        elif kind == b"iloc":
            places += _places(body, budget)
    streams = []
    for item, method, extents in places:
        source = stored if method == 1 else file
        parts = [source[start : start + length] for start, length in extents]
        if item in coded and parts:
            if len(parts) > 1 and sum(map(len, parts)) > len(file):
                raise ImageError("an AVIF item must be no longer than its file; it is: save it again")
            streams.append((parts[0] if len(parts) == 1 else b"".join(parts), areas.get(item, 0)))
    return streams


def _places(body: memoryview, budget: list[int]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield item, construction method and (start, length) of each extent in an `iloc` box."""
    field = Fields(body)
    version, sizes = field(4) >> 24, field(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(field(2 if version < 2 else 4)):
        count_parts(budget)
        item = field(2 if version < 2 else 4)
        method = field(2) & 15 if version in (1, 2) else 0
        field(2)
        start, number = field(base), field(2)
        count_parts(budget, number)
        extents = []
        for _ in range(number):
            field(index if version in (1, 2) else 0)
            extents.append((start + field(offset), field(length)))
        yield item, method, extents


def _track(track: memoryview, file: memoryview, budget: list[int]) -> tuple[memoryview, int] | None:
    """Return the first frame's stream of an AV1 track, and the area to which it is scaled."""
    boxes = [(kind, body) for kind, body in _inner(track, budget) if kind in _TABLES]
    found = dict(boxes)
    if b"av01" not in [kind for kind, _ in boxes_in(found.get(b"stsd", memoryview(b""))[8:], budget)]:
        return None
    kinds = sorted("stco" if kind == b"co64" else kind.decode() for kind, _ in boxes)
    if kinds != ["stco", "stsd", "stsz", "tkhd"]:
        raise ValueError(f"a track has the boxes {', '.join(kinds[:9])}")
    chunks, sizes, header = (
        Fields(found[b"stco" if b"stco" in found else b"co64"]),
        Fields(found[b"stsz"]),
        found[b"tkhd"],
    )
    if chunks(8) & 0xFFFFFFFF == 0:
        return None
    start = chunks(4 if b"stco" in found else 8)
    sizes(4)
    length = sizes(4) or (sizes(4) and sizes(4))
    sides = struct.unpack_from(">II", header, 88 if version_of(header) else 76)
    return file[start : start + length], (sides[0] >> 16) * (sides[1] >> 16)
