"""Read the boxes of ISO base media files, the container of AVIF and HEIC.

Sources: ISO/IEC 14496-12 (boxes) and ISO/IEC 23008-12 (items).
"""

import struct
from collections.abc import Iterator

from effnet.data.images.av1 import count_parts


class Fields:
    """Reads the big-endian numbers of a box; raises ValueError after the last."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._place = data, 0

    def __call__(self, size: int) -> int:
        self._place += size
        if self._place > len(self._data):
            raise ValueError("a box ends early")
        return int.from_bytes(self._data[self._place - size : self._place], "big")


def boxes_in(data: memoryview, budget: list[int]) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the kind and body of each box."""
    place = 0
    while place + 8 <= len(data):
        count_parts(budget)
        size, kind = struct.unpack_from(">I4s", data, place)
        start = 8
        if size == 1 and place + 16 <= len(data):
            size, start = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        elif size == 0:
            size = len(data) - place
        if size < start:  # decoders read no further
            return
        yield kind, data[place + start : place + size]
        place += size


def version_of(body: memoryview) -> int:
    """Return the version of a full box, 0 for an empty one."""
    return body[0] if len(body) else 0


def areas_of(boxes: list[tuple[bytes, memoryview]], budget: list[int]) -> dict[int, int]:
    """Return the largest area in the properties of each item."""
    sizes = []
    for kind, body in boxes:
        if kind == b"ipco":
            for name, value in boxes_in(body, budget):
                sides = struct.unpack_from(">II", value, 4) if name == b"ispe" and len(value) >= 12 else (0, 0)
                sizes.append(sides[0] * sides[1])
    areas: dict[int, int] = {}
    for kind, body in boxes:
        if kind != b"ipma":
            continue
        field, is_long = Fields(body), bool(len(body) > 3 and body[3] & 1)
        version = field(4) >> 24
        for _ in range(field(4)):
            item = field(2 if version < 1 else 4)
            for _ in range(field(1)):
                count_parts(budget)
                index = field(2) & 0x7FFF if is_long else field(1) & 0x7F
                if 0 < index <= len(sizes):
                    areas[item] = max(areas.get(item, 0), sizes[index - 1])
    return areas
