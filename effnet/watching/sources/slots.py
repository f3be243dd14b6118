"""The newest frame of each source, and which of them an engine takes next. No threads, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from effnet.watching.record import Frame

# Time stamps are rounded: a camera of 25 frames a second must be answered 5 times a second for --max-fps 5.
_EARLY = 0.1


@dataclass(slots=True, kw_only=True)
class _Slot:
    keeps: bool
    frame: Frame | None = None
    due: float = float("-inf")
    begun: int = -1
    busy: bool = False
    ended: bool = False


@dataclass(slots=True, kw_only=True)
class Slots:
    """A place for one frame of each source, in their order.

    `keeps` says of each source that none of its frames that are due may be replaced, as those of a file. At most
    `max_fps` frames of a source are taken a second of its time, 0 for any number. A source has one frame in work at a
    time, and of several the engine takes the one that was taken from longest ago.
    """

    keeps: Sequence[bool]
    max_fps: float = 0.0
    _slots: list[_Slot] = field(init=False)
    _taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._slots = [_Slot(keeps=keeps) for keeps in self.keeps]

    def wants(self, source: int, frame: Frame) -> bool:
        """Return whether a frame may be offered now: the place of a source that keeps its frames must be free."""
        slot = self._slots[source]
        return not slot.keeps or slot.frame is None or frame.at < slot.due

    def offer(self, source: int, frame: Frame) -> Frame | None:
        """Put a frame into its place; return the frame that nobody will take, if there is one."""
        slot = self._slots[source]
        if slot.keeps and frame.at < slot.due:
            return frame
        if slot.keeps:
            slot.due = self._next(slot, frame)
        replaced, slot.frame = slot.frame, frame
        return replaced

    def take(self) -> tuple[int, Frame] | None:
        """Return a source and its frame to work on, or None if there is none."""
        ready = [i for i, slot in enumerate(self._slots) if self._is_ready(slot)]
        if not ready:
            return None
        source = min(ready, key=lambda i: self._slots[i].begun)
        slot = self._slots[source]
        frame = slot.frame
        assert frame is not None
        if not slot.keeps:
            slot.due = self._next(slot, frame)
        slot.frame, slot.busy, slot.begun = None, True, self._taken
        self._taken += 1
        return source, frame

    def _is_ready(self, slot: _Slot) -> bool:
        return slot.frame is not None and not slot.busy and (slot.keeps or slot.frame.at >= slot.due)

    def _next(self, slot: _Slot, frame: Frame) -> float:
        if not self.max_fps:
            return float("-inf")
        interval = 1 / self.max_fps
        # Counted from when it was due, so that the mean is kept; not if the source was slower than that.
        base = slot.due + _EARLY * interval
        return (base if frame.at - base < interval else frame.at) + (1 - _EARLY) * interval

    def done(self, source: int) -> None:
        """Say that the work on a source's frame has ended."""
        self._slots[source].busy = False

    def restart(self, source: int) -> None:
        """Say that a source's times begin again."""
        slot = self._slots[source]
        slot.due, slot.frame = float("-inf"), None

    def end(self, source: int) -> None:
        """Say that a source has no more frames; one in its place is still taken."""
        self._slots[source].ended = True

    def is_idle(self, source: int) -> bool:
        """Return whether nothing of a source waits or is in work."""
        slot = self._slots[source]
        return slot.frame is None and not slot.busy

    @property
    def finished(self) -> bool:
        """Whether all sources have ended, and all of their frames are done."""
        return all(slot.ended and self.is_idle(i) for i, slot in enumerate(self._slots))

    @property
    def counts(self) -> tuple[int, int]:
        """The number of frames that wait, and that are in work."""
        return sum(slot.frame is not None for slot in self._slots), sum(slot.busy for slot in self._slots)
