"""One running watch: readers offer frames, engines answer the newest, and events go to whoever takes them."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from effnet.errors import ImageError
from effnet.watching.answers import Window
from effnet.watching.outputs.events import Take, event_of
from effnet.watching.outputs.latest import Latest
from effnet.watching.outputs.recorder import Recorder
from effnet.watching.outputs.snapshots import Snapshots
from effnet.watching.record import Frame, Note, Seen
from effnet.watching.rules.monitor import Monitor, Names
from effnet.watching.rules.read import Rules
from effnet.watching.settings import Settings
from effnet.watching.sources.reader import Backoff, Open, opener, read
from effnet.watching.sources.slots import Slots
from effnet.watching.sources.source import Source

_PICTURED = ("start", "crossed")

Answer = Callable[[int, np.ndarray], Seen]
"""From the number of an engine and an upright image, uint8 [height, width, 3], to the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Who learns what happens: `takers` get each event, `warn` gets what a person should read."""

    takers: Sequence[Take]
    warn: Callable[[str], None]
    recorder: Recorder
    latest: Latest | None = None
    snapshots: Snapshots | None = None


class Watch:
    """Watches sources until all have ended, or `stop` is called.

    `windows` makes the window of a source for a model of clips. `clock` counts seconds, `wall` those since 1970.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: Settings,
        *,
        rules: Rules,
        names: Names,
        answer: Answer,
        engines: int,
        told: Told,
        windows: Callable[[], Window] | None = None,
        open_: Open | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources, self._settings, self._answer, self._told = tuple(sources), settings, answer, told
        self._open, self._clock, self._wall = open_ or opener(settings, clock), clock, wall
        self._engines = engines
        self._monitors = [Monitor(rules, names, settings) for _ in sources]
        self._names = names
        self._windows = None if windows is None else [windows() for _ in sources]
        keeps = [not source.live and not (settings.realtime and source.kind == "file") for source in sources]
        self._slots = Slots(keeps=keeps, max_fps=settings.max_fps)
        self._changed, self._telling = threading.Condition(), threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failure: BaseException | None = None
        self.unreadable = 0

    def start(self) -> None:
        """Begin to read and to answer."""
        jobs: list[tuple[str, Callable[[], None]]] = [
            (f"effnet-watch-{number}", partial(self._read, number, source))
            for number, source in enumerate(self._sources)
        ]
        jobs += [(f"effnet-engine-{number}", partial(self._work, number)) for number in range(self._engines)]
        for name, job in jobs:
            # A reader may hang in a driver; the end of the process does not wait for it.
            thread = threading.Thread(target=self._guarded, args=(job,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until the watch has ended, at most so long; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stop.is_set() or self._slots.finished, seconds)

    def stop(self, *, seconds: float = 5.0) -> None:
        """End all threads, wait at most so long for them, and end the rules that hold."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for number in range(len(self._sources)):
            self._end_rules(number, "the watch ended")

    def counts(self) -> tuple[int, int]:
        """Return the number of frames that wait, and that are in work."""
        with self._changed:
            return self._slots.counts

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # raised by `run`, in the main thread
            self.failure = self.failure or error
            self._stop.set()
            with self._changed:
                self._changed.notify_all()

    def _read(self, number: int, source: Source) -> None:
        backoff = Backoff(most=self._settings.retry_seconds)
        paced = self._settings.realtime and source.kind == "file"
        read(number, source, self, open_=self._open, backoff=backoff, paced=paced, clock=self._clock)

    def _work(self, engine: int) -> None:
        while True:
            with self._changed:
                taken = None
                while not self._stop.is_set() and (taken := self._slots.take()) is None and not self._slots.finished:
                    self._changed.wait()
                if taken is None:
                    return
                self._changed.notify_all()
            number, frame = taken
            try:
                self._answer_to(engine, number, frame)
            finally:
                with self._changed:
                    self._slots.done(number)
                    self._changed.notify_all()

    def _answer_to(self, engine: int, number: int, frame: Frame) -> None:
        source, monitor = self._sources[number], self._monitors[number]
        begun = self._clock()
        try:
            image = frame.image()
            seen = self._answer(engine, image)
            if self._windows is not None:
                seen = self._windows[number].see(seen, frame.at)
        except ImageError as error:
            self._told.recorder.frame(source.name, "unreadable")
            self.unreadable += 1
            if frame.about:
                self._told.warn(str(error))
            return
        now = self._clock()
        age = now - frame.arrived
        self._told.recorder.frame(source.name, "answered")
        self._told.recorder.ran(source.name, seconds=now - begun, age=age)
        notes = monitor.see(seen, frame.at)
        if self._settings.every_frame:
            facts = dict(seen.data) | ({"path": frame.about} if frame.about else {})
            notes.insert(0, Note(kind="answer", facts=facts))
        for note in notes:
            self._tell(note, number, frame=frame, age=age, image=image)
        if self._told.latest is not None:
            self._told.latest.answered(source.name, self._shown(monitor, seen, frame, age), image)

    def _shown(self, monitor: Monitor, seen: Seen, frame: Frame, age: float) -> dict[str, Any]:
        """Return what a view shows of an answer: objects with the numbers by which they are followed."""
        shown: dict[str, Any] = dict(seen.data) | {
            "at": round(frame.at, 3), "age_ms": round(1e3 * age, 3), "active": list(monitor.active)
        }  # fmt: skip
        if self._names.objects:
            shown["followed"] = [
                {
                    "object": track.number, "label": self._names.labels[track.label], "score": round(track.score, 6),
                    "box": [round(side, 4) for side in track.box],
                }
                for track in monitor.tracks
            ]  # fmt: skip
        return shown | ({"label": monitor.label} if monitor.label else {})

    def _tell(
        self, note: Note, number: int, *, frame: Frame | None = None, age: float | None = None,
        image: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        source, wall = self._sources[number].name, self._wall()
        if frame is not None:
            wall -= self._clock() - frame.arrived
        event: Mapping[str, Any] = event_of(
            note, source=source, at=None if frame is None else frame.at, age=age, wall=wall
        )
        if self._told.snapshots is not None and image is not None and note.kind in _PICTURED:
            event = self._with_snapshot(event, image, source)
        self._told.recorder.event(source, note.kind)
        with self._telling:  # in the same order for all
            for take in self._told.takers:
                take(event)

    def _with_snapshot(self, event: Mapping[str, Any], image: np.ndarray, source: str) -> Mapping[str, Any]:
        assert self._told.snapshots is not None
        try:
            return {**event, "snapshot": self._told.snapshots.write(image, source=source, time=event["time"])}
        except OSError as error:
            self._told.warn(f"a snapshot cannot be written: {(error.strerror or str(error)).lower()}")
            return event

    def _end_rules(self, number: int, reason: str) -> None:
        if self._windows is not None:
            self._windows[number].reset()
        for note in self._monitors[number].stop(reason):
            self._tell(note, number)

    # What readers call.

    def offer(self, source: int, frame: Frame) -> None:
        """Take a frame; wait until there is a place for it if the source keeps its frames."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or self._slots.wants(source, frame))
            if self._stop.is_set():
                return
            left = self._slots.offer(source, frame)
            self._changed.notify_all()
        if left is not None:
            outcome = "skipped" if left is frame else "replaced"
            self._told.recorder.frame(self._sources[source].name, outcome)

    def opened(self, source: int) -> None:
        """The first frame of a source has come, also after it was lost."""
        self._told.recorder.up(self._sources[source].name, True)
        self._tell(Note(kind="opened", facts={"address": self._sources[source].shown}), source)

    def lost(self, source: int, reason: str, *, retry: float | None) -> None:
        """A source cannot be read; it is opened again after `retry` seconds, None for never."""
        found = self._sources[source]
        self._settle(source)
        self._told.recorder.up(found.name, False)
        self._end_rules(source, "the source was lost")
        facts = {"reason": reason} | ({} if retry is None else {"retry_seconds": round(retry, 3)})
        self._tell(Note(kind="lost", facts=facts), source)
        if retry is None:
            self.unreadable += 1
            self._told.warn(f"{found.shown} cannot be read: {reason}")
        self._close(source, ends=retry is None)

    def ended(self, source: int) -> None:
        """A source has no more frames."""
        self._settle(source)
        self._told.recorder.up(self._sources[source].name, False)
        self._end_rules(source, "the source ended")
        self._tell(Note(kind="ended"), source)
        self._close(source, ends=True)

    def pause(self, seconds: float) -> bool:
        """Wait, or less if the watch stops; return whether it stops."""
        return self._stop.wait(seconds) if seconds else self._stop.is_set()

    def _settle(self, source: int) -> None:
        """Wait until the frames of a source that breaks off are answered; a waiting one of a camera is dropped."""
        with self._changed:
            if not self._slots.keeps[source]:
                self._slots.restart(source)
            self._changed.wait_for(lambda: self._stop.is_set() or self._slots.is_idle(source))

    def _close(self, source: int, *, ends: bool) -> None:
        with self._changed:
            if ends:
                self._slots.end(source)
            self._changed.notify_all()
