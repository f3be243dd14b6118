"""The thread that reads one source: it offers frames, and opens a broken stream again after a growing wait."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from effnet.data.clips.reading import BrokenVideo
from effnet.data.images.decode import decode_image
from effnet.errors import ImageError, MissingExtraError
from effnet.watching.record import Frame
from effnet.watching.settings import Settings
from effnet.watching.sources.source import Source
from effnet.watching.sources.video import frames_of

_FIRST_SECONDS, _FACTOR = 1.0, 2.0


class Desk(Protocol):
    """What a reader gives its frames to, and learns from whether to stop."""

    def offer(self, source: int, frame: Frame) -> None:
        """Take a frame; wait until there is a place for it if the source keeps its frames."""

    def opened(self, source: int) -> None:
        """The first frame of a source has come, also after it was lost."""

    def lost(self, source: int, reason: str, *, retry: float | None) -> None:
        """A source cannot be read; it is opened again after `retry` seconds, None for never."""

    def ended(self, source: int) -> None:
        """A source has no more frames."""

    def pause(self, seconds: float) -> bool:
        """Wait, or less if the watch stops; return whether it stops."""


@dataclass(slots=True, kw_only=True)
class Backoff:
    """The waits before a broken stream is opened again: twice as long each time, up to `most` seconds.

    A random part keeps many readers of one server from coming at once; `draw` returns a number from 0 to 1.
    """

    most: float
    draw: Callable[[], float] = random.random
    _next: float = _FIRST_SECONDS

    def wait(self) -> float:
        """Return the next wait in seconds."""
        seconds, self._next = min(self._next, self.most), min(self._next * _FACTOR, self.most)
        return seconds * (0.5 + 0.5 * self.draw())

    def worked(self) -> None:
        """Begin with short waits again."""
        self._next = _FIRST_SECONDS


Open = Callable[[Source], Iterator[Frame]]


def opener(settings: Settings, clock: Callable[[], float] = time.monotonic) -> Open:
    """Return the function that opens any source."""

    def open_(source: Source) -> Iterator[Frame]:
        if source.kind == "images":
            return _images(source, settings.image_seconds, clock)
        return frames_of(source, timeout=settings.timeout_seconds, clock=clock)

    return open_


def _images(source: Source, seconds: float, clock: Callable[[], float]) -> Iterator[Frame]:
    """Yield an image file, or those of a folder in the order of their paths."""
    from effnet.data.sources.folder import list_images

    paths = list_images(source.address).paths if Path(source.address).is_dir() else (source.address,)
    if not paths:
        raise BrokenVideo("the folder has no images")
    for number, path in enumerate(paths):
        yield Frame(at=number * seconds, arrived=clock(), image=partial(_decoded, path), about=path)


def _decoded(path: str) -> np.ndarray:
    return decode_image(path)


def read(
    number: int,
    source: Source,
    desk: Desk,
    *,
    open_: Open,
    backoff: Backoff,
    paced: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read a source until it ends, or the watch stops; `paced` plays a file at its own speed."""
    while True:
        try:
            if _read_once(number, source, desk, open_=open_, backoff=backoff, paced=paced, clock=clock):
                return
            reason = "the stream ended"
        except (BrokenVideo, MissingExtraError, ImageError) as error:
            reason = str(error)
            if not source.live:
                desk.lost(number, reason, retry=None)
                return
        if not source.live:
            desk.ended(number)
            return
        retry = backoff.wait()
        desk.lost(number, reason, retry=retry)
        if desk.pause(retry):
            return


def _read_once(
    number: int, source: Source, desk: Desk, *, open_: Open, backoff: Backoff, paced: bool, clock: Callable[[], float]
) -> bool:
    """Offer the frames of a source until it ends; return whether the watch stops."""
    begun: float | None = None
    for frame in open_(source):
        if begun is None:
            begun = clock() - frame.at
            backoff.worked()
            desk.opened(number)
        if desk.pause(max(0.0, begun + frame.at - clock()) if paced else 0.0):
            return True
        if paced:
            # It is of the time at which a camera would have sent it.
            frame = Frame(at=frame.at, arrived=clock(), image=frame.image, about=frame.about)
        desk.offer(number, frame)
    return False
