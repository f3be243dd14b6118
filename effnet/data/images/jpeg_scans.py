"""Count the scans of a JPEG file: each covers the whole image, so a small file with thousands takes minutes.

Source: ITU-T T.81, annex B; libjpeg's jdmarker.c.
"""

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from effnet.errors import ImageError

# An empty scan takes 0.7 ns per pixel: at this limit all scans take 2 s. Real files have about ten scans.
_MOST_SCANNED = 3_000_000_000
_MOST_SCANS = 500
_LEAST_SCANS = 30

_SCAN, _END = 0xDA, 0xD9
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_SCAN_WORD = 0xDAFF
_BLOCK = 2**20


def check_scans(stream: BinaryIO, *, pixels: int) -> bool:
    """Return whether the decoder keeps all coefficients of the file; raise ImageError for too many scans."""
    place = stream.tell()
    stream.seek(0)
    found = last = 0
    while block := stream.read(_BLOCK):
        found += count_scans(block) + (last == 0xFF and block[0] == _SCAN)
        last = block[-1]
    stream.seek(0)
    keeps = found != 1 and check_scan_count(stream.read(), pixels=pixels, found=found)
    stream.seek(place)
    return keeps


def check_scan_count(data: bytes, *, pixels: int, found: int) -> bool:
    """Return and raise as `check_scans`; `found` is the number of scan starts found by `count_scans`."""
    most = max(_LEAST_SCANS, min(_MOST_SCANS, _MOST_SCANNED // max(1, pixels)))
    # Thumbnails in the metadata and videos after the image count as well, so only large counts are counted exactly.
    if found > most and (exact := sum(marker == _SCAN for marker, _ in _markers(data))) > most:
        raise ImageError(
            f"a JPEG file of {pixels:,} pixels must have at most {most} scans; it has {exact:,}: save it again"
        )
    return _keeps_coefficients(data)


def count_scans(data: bytes) -> int:
    """Return how often the two bytes that start a scan occur in the file: an upper bound of its scans."""
    # Twice as pairs of bytes, from offsets 0 and 1: ten times as fast as bytes.count.
    return sum(
        int(np.count_nonzero(np.frombuffer(data, "<u2", count=(len(data) - start) // 2, offset=start) == _SCAN_WORD))
        for start in (0, 1)
        if len(data) - start >= 2
    )


def _keeps_coefficients(data: bytes) -> bool:
    """Return whether a decoder keeps the coefficients of the whole image, as more than one scan requires."""
    components = 0
    for marker, place in _markers(data):
        if marker in _FRAMES:
            if marker not in (0xC0, 0xC1):
                return True
            components = data[place + 9] if place + 9 < len(data) else 0
        elif marker == _SCAN:
            return place + 4 >= len(data) or data[place + 4] < components
    return True


def coefficient_bytes(layers: Sequence[tuple[int, int, int, int]]) -> float:
    """Return the bytes per pixel of the coefficients, two each, of layers (id, horizontal, vertical, table)."""
    wide, high = (max((layer[axis] for layer in layers), default=1) or 1 for axis in (1, 2))
    return sum(2 * layer[1] * layer[2] / (wide * high) for layer in layers)


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of the first image in the file and their places, as libjpeg finds them."""
    place = 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end() - 2
        yield marker, place
        if marker == _END:
            return
        has_length = marker >= 0xC0 and not 0xD0 <= marker <= 0xD8
        place += 2 + (int.from_bytes(data[place + 2 : place + 4], "big") if has_length else 0)
