"""Follow objects from frame to frame by the overlap of their boxes, the largest first (greedy IoU matching)."""

from collections.abc import Sequence
from dataclasses import dataclass

from effnet.watching.record import Box, Point, Thing
from effnet.watching.rules.geometry import foot, overlap

# Boxes of one object overlap at least this much from one frame to the next, after its speed is added.
_LEAST_OVERLAP = 0.3
# An object counts once it was found this often: a false one of a single frame does not.
_LEAST_HITS = 2
# How much of a new speed replaces the old one.
_SPEED_SHARE = 0.5


@dataclass(slots=True, kw_only=True)
class Track:
    """One object over time: its latest box and score, when it was last found, and its speed a second."""

    number: int
    label: int
    score: float
    box: Box
    at: float
    hits: int = 1
    speed: Point = (0.0, 0.0)

    @property
    def foot(self) -> Point:
        """Where it stands."""
        return foot(self.box)

    @property
    def confirmed(self) -> bool:
        """Whether it was found often enough to count."""
        return self.hits >= _LEAST_HITS

    def expected(self, at: float) -> Box:
        """Return where its box is at a time, if its speed stays."""
        x, y = (each * (at - self.at) for each in self.speed)
        return self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y

    def found(self, thing: Thing, at: float) -> None:
        """Take the object that was found at a time."""
        if at > self.at:
            old, new = (tuple((box[i] + box[i + 2]) / 2 for i in (0, 1)) for box in (self.box, thing.box))
            speed = tuple((b - a) / (at - self.at) for a, b in zip(old, new, strict=True))
            share = 1.0 if self.hits == 1 else _SPEED_SHARE
            self.speed = tuple(s + share * (n - s) for s, n in zip(self.speed, speed, strict=True))  # type: ignore[assignment]
        self.box, self.score, self.at = thing.box, thing.score, at
        self.hits += 1


class Tracker:
    """The objects of one source. One that is not found is followed for `seconds` more."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds, self._tracks, self._made = seconds, list[Track](), 0

    def see(self, things: Sequence[Thing], at: float) -> tuple[Track, ...]:
        """Return the confirmed objects, given those found in the frame at a time, which grows."""
        pairs = [
            (overlap(track.expected(at), thing.box), i, j)
            for i, track in enumerate(self._tracks)
            for j, thing in enumerate(things)
            if track.label == thing.label
        ]
        old, new = set(range(len(self._tracks))), set(range(len(things)))
        for share, i, j in sorted(pairs, key=lambda pair: -pair[0]):
            if share < _LEAST_OVERLAP:
                break
            if i in old and j in new:
                self._tracks[i].found(things[j], at)
                old.discard(i)
                new.discard(j)
        for j in sorted(new):
            self._made += 1
            thing = things[j]
            track = Track(number=self._made, label=thing.label, score=thing.score, box=thing.box, at=at)
            self._tracks.append(track)
        self._tracks = [track for track in self._tracks if self._lives(track, at)]
        return tuple(track for track in self._tracks if track.confirmed)

    def _lives(self, track: Track, at: float) -> bool:
        return track.at == at or (track.confirmed and at - track.at <= self._seconds)

    def reset(self) -> None:
        """Forget all objects: the frames that follow are of another time."""
        self._tracks = []
