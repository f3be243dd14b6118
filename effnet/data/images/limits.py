"""Limits for one image: its pixels, its decoder's memory, and the bytes of its header."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from effnet.errors import ImageError, InputError

_OPTION = "EFFNET_MAX_PIXELS"
_DEFAULT_PIXELS = 100_000_000
_MOST_PIXELS = 1_000_000_000


def _chosen_pixels() -> int:
    text = os.environ.get(_OPTION, "").strip()
    if not text:
        return _DEFAULT_PIXELS
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _MOST_PIXELS):
        raise InputError(
            f"{_OPTION} must be a whole number of pixels from 1 to {_MOST_PIXELS:,}; got {text[:40]!r}: change it, or "
            "unset it"
        )
    return int(text)


MAX_PIXELS = _chosen_pixels()
"""Width times height above which an image is refused before decoding: EFFNET_MAX_PIXELS, or 100 million."""

BYTES_PER_PIXEL = 8
"""Bytes per pixel needed for decoding: 4 in Pillow's image and 4 in the result.

Decoders that need more have a lower pixel limit."""

MAX_BYTES = BYTES_PER_PIXEL * MAX_PIXELS
"""Memory limit for all images that are decoded at the same time; an image that needs more is refused."""

MAX_WHOLE_FILE = 2 * MAX_PIXELS
"""The size of the largest file that is read whole before it is decoded: JPEG, WebP, AVIF and HEIC."""

# Limit for headers with all metadata. Each call of `read` counts as some extra bytes, so that there are not millions
# of tiny reads.
_HEADER_BYTES = 64 * 2**20
_CALL_BYTES = 4096
_EXIF = b"Exif\0\0"
MAX_EXIF_BYTES = 2**20
"""The longest EXIF block that is read; a JPEG segment holds 64 KiB."""

# An image that needs less is not counted: waiting would cost more than it saves.
_SMALL_BYTES = 8 * 2**20


class PixelsError(ImageError):
    """An image of too many pixels, by its header."""


def check_pixels(width: int, height: int, *, bytes_needed: float = 0) -> None:
    """Raise PixelsError for an image of too many pixels, ImageError if it needs more than MAX_BYTES to decode."""
    size = f"its header says {width} x {height}"
    if width * height > MAX_PIXELS:
        way = (
            f", or set the environment variable {_OPTION} to {width * height}" if width * height <= _MOST_PIXELS else ""
        )
        raise PixelsError(f"it must have at most {MAX_PIXELS:,} pixels, {size}; make it smaller{way}")
    if bytes_needed > MAX_BYTES:
        raise ImageError(
            f"decoding it must take at most {MAX_BYTES / 1e6:,.0f} MB; it takes {bytes_needed / 1e6:,.0f} MB, {size}; "
            f"make it smaller, store it as plain JPEG or PNG, or set the environment variable {_OPTION} higher than "
            f"{MAX_PIXELS}"
        )


class Room:
    """The memory that images share; a request for more than is free waits, in order of arrival."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free = size_bytes
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._mine = threading.local()

    @contextmanager
    def taken(self, size_bytes: float) -> Iterator[None]:
        """Wait until `size_bytes` are free and reserve them for the block; a larger request waits for all memory.

        A thread that has reserved memory already reserves no more, so that it never waits for itself.
        """
        wanted = min(math.ceil(size_bytes), self.size_bytes)
        if wanted < _SMALL_BYTES or getattr(self._mine, "taken", False):
            yield
            return
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        self._mine.taken = True
        try:
            yield
        finally:
            self._mine.taken = False
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


ROOM = Room(MAX_BYTES)
"""The memory of all images that this process decodes, in any thread."""

if hasattr(os, "register_at_fork"):  # other threads do not exist in the new process, and never release memory
    os.register_at_fork(after_in_child=lambda: ROOM.__init__(MAX_BYTES))  # type: ignore[misc]


class HeaderStream:
    """A file whose header is read with limited bytes and calls; `release` removes the limits.

    Raises ImageError if Pillow reads without end, in comments, tags, chunks or segments.
    """

    def __init__(self, stream: BinaryIO, *, limit_bytes: int = _HEADER_BYTES, call_bytes: int = _CALL_BYTES) -> None:
        self._stream = stream
        self._read = stream.read
        self._left = limit_bytes
        self._call_bytes = call_bytes
        self._exif_left = MAX_EXIF_BYTES

    def read(self, size: int = -1) -> bytes:
        """Return the requested number of bytes; raise ImageError if the header is too long."""
        left = self._left
        data = self._read(size if 0 <= size <= left else left + 1)
        self._left = left = left - len(data) - self._call_bytes
        if data[:6] == _EXIF:
            self._exif_left -= len(data)
        if left < 0 or self._exif_left < 0:
            raise ImageError("its header or its metadata are too long; save it again without them")
        return data

    def release(self) -> None:
        """Stop counting: pixels follow."""
        self.read = self._stream.read  # type: ignore[assignment, method-assign]

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
