"""Which frame is answered next, how a broken stream is opened again, and how a watch ends."""

import threading
from contextlib import suppress

import numpy as np
import pytest

from effnet.data.clips.reading import BrokenVideo
from effnet.errors import InputError
from effnet.watching.outputs.recorder import Recorder
from effnet.watching.record import Frame, Seen
from effnet.watching.rules.monitor import Names
from effnet.watching.rules.read import read_rules
from effnet.watching.settings import Settings
from effnet.watching.sources.reader import Backoff, read
from effnet.watching.sources.slots import Slots
from effnet.watching.sources.source import Source, read_sources
from effnet.watching.watch import Told, Watch


def frame(at, number=0):
    return Frame(at=at, arrived=at, image=lambda: np.full((4, 6, 3), number, np.uint8))


def test_the_newest_frame_of_a_camera_wins():
    slots = Slots(keeps=[False])
    first, second = frame(0), frame(0.1)
    assert slots.offer(0, first) is None
    assert slots.offer(0, second) is first
    assert slots.take() == (0, second)
    assert slots.take() is None


def test_a_file_keeps_its_frames():
    slots = Slots(keeps=[True])
    slots.offer(0, frame(0))
    assert not slots.wants(0, frame(0.1))
    slots.take()
    assert slots.wants(0, frame(0.1))


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("fps, every", [(25, 5), (30, 6), (12.5, 3), (4, 1)])
def test_the_frame_budget_is_kept_by_the_times_of_the_frames(keeps, fps, every):
    """12.5 frames a second cannot be answered 5 times a second evenly: then the mean is nearly kept."""
    slots, taken = Slots(keeps=[keeps], max_fps=5), 0
    for number in range(200):
        slots.offer(0, frame(number / fps))
        if slots.take() is not None:
            taken += 1
            slots.done(0)
    seconds = 200 / fps
    assert taken <= 5 * seconds + 1
    assert taken >= 0.8 * min(5, fps) * seconds


def test_slow_engines_serve_all_sources_alike():
    """One source of 50 frames a second cannot take the place of two of 5."""
    slots, taken = Slots(keeps=[False] * 3), [0, 0, 0]
    for tick in range(1000):
        at = tick / 50
        slots.offer(0, frame(at))
        if tick % 10 == 0:
            slots.offer(1, frame(at))
            slots.offer(2, frame(at))
        if tick % 12 == 0:  # the engine is free
            source, _ = slots.take()
            taken[source] += 1
            slots.done(source)
    assert max(taken) - min(taken) <= 2, taken


def test_a_source_has_one_frame_in_work():
    slots = Slots(keeps=[False, False])
    slots.offer(0, frame(0))
    slots.take()
    slots.offer(0, frame(1))
    assert slots.take() is None
    slots.done(0)
    assert slots.take() is not None


def test_the_age_of_an_answered_frame_is_bounded_with_a_slow_model():
    """Simulated: 3 cameras of 25 frames a second and one engine of 100 ms: at most a frame interval and its service."""
    slots, now, free, ages, work = Slots(keeps=[False] * 3), 0.0, 0.0, [], None
    for tick in range(3000):
        now = tick / 1000
        for source, shift in enumerate((0, 13, 27)):
            if (tick + shift) % 40 == 0:
                slots.offer(source, frame(now))
        if work and now >= free:
            ages.append(now - work[1].arrived)
            slots.done(work[0])
            work = None
        if work is None and (work := slots.take()):
            free = now + 0.1
    assert len(ages) >= 28
    assert max(ages) <= 0.04 + 0.1 + 0.001


def test_sources_are_read_from_words(tmp_path):
    clip = tmp_path / "door.mp4"
    clip.write_bytes(b"x")
    (tmp_path / "door.png").write_bytes(b"x")
    found = read_sources(
        [str(clip), "yard=rtsp://me:secret@10.0.0.7:554/live?token=abc", "0", str(tmp_path), "rtsp://10.0.0.8/a"]
    )
    assert [source.kind for source in found] == ["file", "stream", "device", "images", "stream"]
    assert [source.name for source in found][:3] == ["door", "yard", "camera0"]
    assert [source.live for source in found] == [False, True, True, False, True]
    assert "secret" not in found[1].shown + found[1].name
    assert "token" not in found[1].shown
    assert found[4].name == "10.0.0.8"
    assert [source.name for source in read_sources([str(clip), str(clip)])] == ["door-1", "door-2"]


@pytest.mark.parametrize(
    "words, message",
    [([], "at least one source"), (["nowhere.mp4"], "there is no nowhere.mp4"), (["ftp://x/y"], "a stream must be one"),
     (["a=0", "a=1", "a-1=2"], "another name")],
)  # fmt: skip
def test_what_is_no_source_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        read_sources(words)


def test_the_waits_grow_to_a_limit_and_begin_again():
    backoff = Backoff(most=8, draw=lambda: 1.0)
    assert [backoff.wait() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    backoff.worked()
    assert backoff.wait() == 1
    assert Backoff(most=8, draw=lambda: 0.0).wait() == 0.5, "many readers do not come at once"


CAMERA = Source(name="yard", kind="stream", address="rtsp://x", shown="rtsp://x")
FILE = Source(name="clip", kind="file", address="clip.mp4", shown="clip.mp4")


class Desk:
    """Notes what a reader does; stops after some pauses."""

    def __init__(self, most=3):
        self.told, self._left = [], most

    def offer(self, source, frame):
        self.told.append(("frame", frame.at))

    def opened(self, source):
        self.told.append(("opened",))

    def lost(self, source, reason, *, retry):
        self.told.append(("lost", reason, retry))

    def ended(self, source):
        self.told.append(("ended",))

    def pause(self, seconds):
        self._left -= seconds > 0
        return self._left <= 0


def test_a_stream_that_breaks_or_ends_is_opened_again():
    tries = iter([BrokenVideo("connection refused"), [frame(0)], [frame(0), BrokenVideo("timed out")]])

    def open_(source):
        found = next(tries)
        for each in [found] if isinstance(found, Exception) else found:
            if isinstance(each, Exception):
                raise each
            yield each

    desk = Desk()
    read(0, CAMERA, desk, open_=open_, backoff=Backoff(most=60, draw=lambda: 1.0))
    assert desk.told == [
        ("lost", "connection refused", 1), ("opened",), ("frame", 0), ("lost", "the stream ended", 1), ("opened",),
        ("frame", 0), ("lost", "timed out", 1),
    ]  # fmt: skip


def test_a_file_ends_or_is_given_up():
    desk = Desk()
    read(0, FILE, desk, open_=lambda source: iter([frame(0), frame(1)]), backoff=Backoff(most=1))
    assert desk.told == [("opened",), ("frame", 0), ("frame", 1), ("ended",)]

    def broken(source):
        raise BrokenVideo("invalid data")
        yield

    desk = Desk()
    read(0, FILE, desk, open_=broken, backoff=Backoff(most=1))
    assert desk.told == [("lost", "invalid data", None)]


def watched(open_, *, sources=(FILE,), rules=(), answer=None, **settings):
    """Return a watch that has not begun, and the list that its events go to."""
    names = Names(labels=("dark", "light"), exclusive=2)

    def mean(engine, image):
        light = image.mean() / 255
        return Seen(scores=np.array([1 - light, light]))

    events = []
    told = Told(takers=[events.append], warn=events.append, recorder=Recorder())
    chosen = Settings(model="m", **({"max_fps": 0, "smooth_seconds": 0} | settings))
    found = read_rules(rules, labels=names.labels, objects=False)
    watch = Watch(
        sources, chosen, rules=found, names=names, answer=answer or mean, engines=2, told=told, open_=open_,
        wall=lambda: 0.0, clock=lambda: 2.0,
    )  # fmt: skip
    return watch, events


def test_every_frame_of_a_file_is_answered_in_order():
    watch, events = watched(lambda _: (frame(k / 10, 255 * (10 <= k < 25)) for k in range(40)), rules=["light > 0.5"])
    watch.start()
    assert watch.wait(60)
    watch.stop()
    assert [each["event"] for each in events] == ["opened", "start", "end", "ended"]
    start, end = events[1:3]
    assert (start["at"], end["at"], end["until"]) == (1.0, 2.9, 2.4)
    assert start["source"] == "clip"
    assert start["time"] == "1969-12-31T23:59:59.000+00:00", "when the frame arrived, not when it was answered"
    assert start["age_ms"] == 1000


def test_a_rule_that_holds_ends_with_its_source():
    watch, events = watched(lambda _: (frame(k / 10, 255) for k in range(10)), rules=["light > 0.5"])
    watch.start()
    assert watch.wait(60)
    watch.stop()
    assert [each["event"] for each in events] == ["opened", "start", "end", "ended"]
    assert events[2]["reason"] == "the source ended"


def test_a_watch_that_is_stopped_ends_its_rules_and_threads():
    going = threading.Event()

    def endless(source):
        for k in range(10**9):
            yield frame(k / 10, 255)
            if k == 20:
                going.set()

    watch, events = watched(endless, rules=["light > 0.5"])
    watch.start()
    assert going.wait(60)
    watch.stop(seconds=60)
    assert [each["event"] for each in events] == ["opened", "start", "end"]
    assert events[-1]["reason"] == "the watch ended"
    assert not any(thread.is_alive() for thread in watch._threads)


def test_a_lost_camera_ends_its_rules_and_those_of_others_go_on():
    def open_(source):
        if source.name == "yard":
            yield frame(0, 255)
            raise BrokenVideo("timed out")
        for k in range(5):
            yield frame(k / 10, 255)

    lost = threading.Event()
    watch, events = watched(open_, sources=(CAMERA, FILE), rules=["light > 0.5"])
    offer = watch.offer

    def slow_offer(source, each):
        offer(source, each)
        if source == 0:
            with watch._changed:
                assert watch._changed.wait_for(lambda: watch._slots.is_idle(0), 60)

    watch.offer = slow_offer
    watch._told.takers.append(lambda event: lost.set() if event["event"] == "lost" else None)
    watch.start()
    assert lost.wait(60)
    watch.stop()
    yard = [each for each in events if each["source"] == "yard"]
    assert [each["event"] for each in yard] == ["opened", "start", "end", "lost"]
    assert yard[2]["reason"] == "the source was lost"
    assert yard[3]["retry_seconds"] > 0


def test_a_model_that_fails_ends_the_watch_with_its_error():
    def fail(engine, image):
        raise InputError("the model is damaged")

    watch, _ = watched(lambda _: iter([frame(0)]), answer=fail)
    watch.start()
    assert watch.wait(60)
    watch.stop()
    with suppress(InputError):
        raise watch.failure
    assert "damaged" in str(watch.failure)
