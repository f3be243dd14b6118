"""When a rule starts and ends: averages, hysteresis and durations, by the times of the frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.watching.record import Point
from effnet.watching.rules.geometry import beside, meets
from effnet.watching.rules.read import Rule
from effnet.watching.rules.tracker import Track

# An object that stands on a line must not cross it again and again: nearer than this share of a frame's side, it stays
# where it was.
_NEAR_LINE = 0.01


class Average:
    """The exponential moving average of values with a time constant in seconds; 0 for none."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._value: np.ndarray | None = None
        self._at = 0.0

    def see(self, value: np.ndarray, at: float) -> np.ndarray:
        """Return the average, given the value of any shape at a time, which grows."""
        value = np.asarray(value, np.float64)
        if self._value is None or self._seconds == 0:
            self._value = value
        else:
            share = -math.expm1(-(at - self._at) / self._seconds)
            self._value = self._value + share * (value - self._value)
        self._at = at
        return self._value

    def reset(self) -> None:
        """Forget all values."""
        self._value = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A rule that starts or ends: the value, since when it holds and, at the end, until when."""

    starts: bool
    value: float
    since: float
    until: float


class Trigger:
    """The state of one rule in one source.

    It starts once the rule held for its duration. It ends when the rule failed for `gap`, where a score fails only if
    it is `margin` on the other side of the level. A failure of less than `gap` counts neither before nor after.
    """

    def __init__(self, rule: Rule, *, smooth: float, margin: float, gap: float) -> None:
        self.rule, self._gap = rule, gap
        self._margin = 0.0 if rule.counts else margin
        self._average = Average(0.0 if rule.counts else smooth)
        self.active = False
        self._since: float | None = None
        self._last = self._value = 0.0

    def see(self, value: float, at: float) -> Change | None:
        """Return the change, if there is one, given the value of the frame at a time, which grows."""
        value = float(self._average.see(np.float64(value), at))
        if self.rule.holds(value, margin=self._margin if self.active else 0.0):
            self._since = at if self._since is None else self._since
            self._last, self._value = at, value
            # A float's rounding must not cost a frame.
            if self.active or at - self._since < self.rule.seconds - 1e-9:
                return None
            self.active = True
            return Change(starts=True, value=value, since=self._since, until=at)
        if self._since is None or at - self._last < self._gap:
            return None
        return self.stop(value)

    def stop(self, value: float | None = None) -> Change | None:
        """End the rule, as the frames stop; return the change if it was active."""
        since, was_active = self._since, self.active
        self._since, self.active = None, False
        if value is None:
            self._average.reset()
        if not was_active or since is None:
            return None
        return Change(starts=False, value=self._value if value is None else value, since=since, until=self._last)


class Crossings:
    """Which objects cross a line, from `begin` to `end`, and the number that has crossed it to each side."""

    def __init__(self, begin: Point, end: Point) -> None:
        self._begin, self._end = begin, end
        self._places: dict[int, Point] = {}
        self.totals = {"left": 0, "right": 0}

    def see(self, tracks: Sequence[Track]) -> list[tuple[Track, str]]:
        """Return the objects that have crossed the line since the frame before, each with the side that it is on."""
        found = []
        for track in tracks:
            place, before = track.foot, self._places.get(track.number)
            side = beside(place, self._begin, self._end)
            if abs(side) < _NEAR_LINE:
                continue
            self._places[track.number] = place
            if before is None or (beside(before, self._begin, self._end) > 0) == (side > 0):
                continue
            if meets(before, place, self._begin, self._end):
                name = "right" if side > 0 else "left"
                self.totals[name] += 1
                found.append((track, name))
        alive = {track.number for track in tracks}
        self._places = {number: place for number, place in self._places.items() if number in alive}
        return found


class Steady:
    """A value that does not flicker: another one replaces it once it was seen for `gap` without a break."""

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self.value: object = None
        self._other: object = None
        self._since = 0.0

    def see(self, value: object, at: float) -> bool:
        """Return whether the value is replaced, given that of the frame at a time, which grows."""
        if value == self.value:
            self._other = None
            return False
        if value != self._other:
            self._other, self._since = value, at
        if self.value is not None and at - self._since < self._gap:
            return False
        self.value, self._other = value, None
        return True

    def reset(self) -> None:
        """Forget the value that was seen last; that which was replaced stays."""
        self._other = None
