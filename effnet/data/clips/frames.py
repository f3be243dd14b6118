"""Clips as the images of a data set: some frames of each, which stay on one side of a split and answer together."""

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from effnet.data.clips.reading import sampled_frames
from effnet.data.clips.record import FRAMES, is_video
from effnet.data.sources.source import Group, Listing, Part, Skipped

# Frames are read one after the other: without this, each would decode its whole clip again.
_KEPT_CLIPS = 8


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One of `count` frames of a clip, as a stored image of a data set (effnet.data.sources.source.Stored)."""

    path: str
    number: int
    count: int = FRAMES

    @property
    def name(self) -> str:
        """The name in messages and reports."""
        return f"{self.path}#{self.number + 1}"

    @property
    def block(self) -> int:
        """All clips are available at once."""
        return 0

    def read(self) -> bytes:
        """Return the frame as a BMP file; raise ImageError if the clip cannot be read."""
        file = io.BytesIO()
        Image.fromarray(_clips.frames(self.path, self.count)[self.number]).save(file, format="BMP")
        return file.getvalue()


class _Clips:
    """The frames of the clips that were read last; for all threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._found: OrderedDict[tuple[str, int, int], list[np.ndarray]] = OrderedDict()

    def frames(self, path: str, count: int) -> list[np.ndarray]:
        """Return the frames of a clip."""
        key = (path, count, _changed(path))
        with self._turn:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = sampled_frames(path, count)
        with self._turn:
            self._found[key] = found
            while len(self._found) > _KEPT_CLIPS:
                self._found.popitem(last=False)
        return found


_clips = _Clips()


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def with_clips(listing: Listing) -> Listing:
    """Return the listing of a folder with frames in place of its videos, if it has more of these than images.

    Otherwise videos are left out: folders of photographs often hold a few.
    """
    every = [source for part in listing.parts.values() for source in part.sources]
    videos = sum(map(is_video, every))
    if not videos:
        return listing
    if 2 * videos <= len(every):
        parts = {name: _kept(part, videos=False) for name, part in listing.parts.items()}
        note = f"{videos} videos were ignored: clips are classified if there are more of them than images."
        return replace(listing, parts=parts, notes=(*listing.notes, note))
    only = {name: _kept(part, videos=True) for name, part in listing.parts.items()}
    skipped = [Skipped(path=source, reason="it is an image among clips") for source in every if not is_video(source)]  # type: ignore[arg-type]
    groups = tuple(
        Group(kind="group", names=tuple(frame.name for frame in _frames(source)))
        for part in only.values()
        for source in part.sources
    )
    parts = {
        name: Part(
            sources=tuple(frame for source in part.sources for frame in _frames(source)),
            labels=tuple(label for label in part.labels for _ in range(FRAMES)),
        )
        for name, part in only.items()
    }
    note = (
        f"{videos} clips, of each of which {FRAMES} evenly spaced frames are taken: a clip is answered by the mean of "
        "their features, and counts as one image where answers are counted."
    )
    return replace(
        listing, parts=parts, groups=(*listing.groups, *groups), skipped=(*listing.skipped, *skipped),
        notes=(*listing.notes, note),
    )  # fmt: skip


def _kept(part: Part, *, videos: bool) -> Part:
    pairs = [pair for pair in zip(part.sources, part.labels, strict=True) if is_video(pair[0]) == videos]
    return Part(sources=tuple(source for source, _ in pairs), labels=tuple(label for _, label in pairs))


def _frames(source: Any) -> list[ClipFrame]:
    return [ClipFrame(source, number) for number in range(FRAMES)]


def by_clip(sources: Sequence[Any], indices: Sequence[int]) -> list[list[int]] | None:
    """Return the places in `indices` of the images of each clip, in their order; None if `sources` are no clips."""
    found: dict[str, list[int]] = {}
    for place, index in enumerate(indices):
        source = sources[index]
        if not isinstance(source, ClipFrame):
            return None
        found.setdefault(source.path, []).append(place)
    return list(found.values()) or None
