"""The minutes of a fit: one deadline for all of it, and how long each stage of the work is expected to take.

Estimates rest on what was measured here: reading an image, a network's answer, and one whole measurement, which stands
for everything that starts a process, writes files or draws.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from effnet.data.datasets import Dataset

# The share of all minutes that planning may take, and those of what is left that int8 and recovery after pruning get.
PLANNING_SHARE, INT8_SHARE, PRUNING_SHARE = 0.25, 0.3, 0.5
# In measurements, on a free machine 1 to 2 s each: exports, their check, the last measurement and the reports; the
# reports alone; what a head takes beside its features; a step towards int8, whose file is measured in turns with
# another.
_FINISHING, _REPORT, _HEAD, _INT8_STEP = 4.0, 1.5, 1.0, 6.0
# An estimate that is missed by so little is none: a stage that takes this share of it may still fit.
NEARLY = 0.8
# Learning gets at least this share of what int8 leaves, and what must follow at most this share of all.
_LEAST_LEARNING, _MOST_RESERVED = 0.3, 0.5
# Ranges of int8 and the correction of its biases take, on one core, the answers to at most so many images so many times
# over: 198 images through Lite2 took 56 s, their answers 9.
_CALIBRATED, _CALIBRATION = 256, 6


USES = {
    "before": "reading and planning",
    "learning": "training",
    "change": "pruning and recovery",
    "int8": "int8",
    "finishing": "export, proof and report",
}
"""What the time is used for, in words; "before" is what was over when it was planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The `end` of the work by `clock`, of which `seconds` were given; both are infinite where no minutes were."""

    seconds: float = math.inf
    end: float = math.inf
    clock: Callable[[], float] = time.monotonic

    @property
    def limited(self) -> bool:
        """Whether there is an end."""
        return math.isfinite(self.end)

    def left(self) -> float:
        """Returns the seconds that are left, at least 0."""
        return max(0.0, self.end - self.clock())

    def used(self) -> float:
        """Returns the seconds that have passed of all that there were, which may be more; 0 without an end."""
        return self.seconds - (self.end - self.clock()) if self.limited else 0.0

    def at_most(self, seconds: float) -> "Deadline":
        """Returns a deadline in so many seconds, or this one where it is earlier."""
        return self if not self.limited else replace(self, end=min(self.end, self.clock() + seconds))

    def earlier(self, seconds: float) -> "Deadline":
        """Returns the deadline of what must be done so many seconds before this one."""
        return replace(self, end=self.end - seconds)


UNLIMITED = Deadline()


def deadline_of(minutes: float | None, *, used: float = 0.0, clock: Callable[[], float] = time.monotonic) -> Deadline:
    """Returns the deadline of a fit that begins now, of whose `minutes` earlier sessions `used` so many seconds."""
    if minutes is None:
        return Deadline(clock=clock)
    return Deadline(seconds=60 * minutes, end=clock() + max(0.0, 60 * minutes - used), clock=clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What was measured of this machine, in seconds.

    `read` is an image's reading on all of the `cores`, `mac` a multiply-accumulate of an exported network on one of
    them, and `measure` one measurement of a file, in a process of its own.
    """

    read: float = 0.0
    mac: float = 0.0
    measure: float = 0.0
    cores: int = 1

    def answer(self, images: int, macs: float) -> float:
        """Returns how long a network of so many MACs takes to answer so many images."""
        return images * (self.read + self.mac * macs / self.cores)

    def calibrated(self, dataset: Dataset) -> int:
        """Returns how many answers int8 costs before its file is there."""
        return min(_CALIBRATED, len(dataset.train)) * _CALIBRATION * self.cores

    @property
    def report(self) -> float:
        """How long the reports take."""
        return _REPORT * self.measure

    def finishing(self, dataset: Dataset, macs: float) -> float:
        """Returns how long it takes from a trained network to its bundle, proven, with its reports."""
        return _FINISHING * self.measure + self.answer(len(dataset.val) + len(dataset.test), macs)

    def head(self, dataset: Dataset, macs: float) -> float:
        """Returns how long a head takes, on one view of each image."""
        return _HEAD * self.measure + self.answer(len(dataset.train) + len(dataset.val), macs)

    def int8(self, dataset: Dataset, macs: float, *, steps: int) -> float:
        """Returns how long int8 takes that is reached in so many steps, with its calibration and test."""
        other = (steps - 1) * (_INT8_STEP * self.measure + self.answer(len(dataset.val), macs))
        return self.int8_step(dataset, macs) + other + self.answer(2 * len(dataset.test), macs)

    def int8_step(self, dataset: Dataset, macs: float) -> float:
        """Returns how long one step of int8 takes: a file written, scored, and timed in turns with another."""
        writing = self.calibrated(dataset) * self.mac * macs / self.cores
        return writing + _INT8_STEP * self.measure + self.answer(len(dataset.val), macs)

    def epoch(self, dataset: Dataset, macs: float, *, images_per_second: float) -> float:
        """Returns how long an epoch takes with its validation, at this speed of training steps."""
        steps = len(dataset.train) * (1 / images_per_second + self.read)
        return steps + self.answer(len(dataset.val), macs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Seconds of what is left, by what they are for; without a deadline those of learning are infinite."""

    learning: float
    change: float = 0.0
    int8: float = 0.0
    finishing: float = 0.0

    @property
    def later(self) -> float:
        """Seconds for what follows learning."""
        return self.change + self.int8 + self.finishing

    def in_words(self) -> tuple[str, ...]:
        """Returns a line for each use that there is."""
        rows = asdict(self).items()
        return tuple(f"  {clock_words(seconds):>8}  {USES[name]}" for name, seconds in rows if seconds > 0)

    def to_dict(self) -> dict[str, float]:
        """Returns the seconds, rounded, for the report."""
        return {name: round(seconds, 1) for name, seconds in asdict(self).items()}


def use_of(left: float, pace: Pace, dataset: Dataset, macs: float, *, int8_steps: int, changed: bool) -> Use:
    """Returns how `left` seconds are used for a network of so many MACs, which learns, and may be changed and rounded.

    `int8_steps` are those that its int8 takes at the least, 0 without any.
    What follows learning comes first, for without it there is no bundle; learning has the rest.
    """
    if math.isinf(left):
        return Use(learning=math.inf)
    finishing = reserve(left, pace.finishing(dataset, macs))
    rest = left - finishing
    rounding = max(pace.int8(dataset, macs, steps=int8_steps), INT8_SHARE * rest) if int8_steps else 0.0
    if rounding > (1 - _LEAST_LEARNING) * rest:
        rounding = 0.0
    rest -= rounding
    change = PRUNING_SHARE * rest if changed else 0.0
    return Use(learning=rest - change, change=change, int8=rounding, finishing=finishing)


def reserve(left: float, seconds: float) -> float:
    """Returns how much of what is left is kept for what must follow: no more than half, however slow the machine is."""
    return min(seconds, _MOST_RESERVED * left)


def clock_words(seconds: float) -> str:
    """Returns seconds as whoever waits reads them: 45 s, 3:20 min."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def not_enough(what: str, *, needs: float, left: float) -> str:
    """Returns the sentence for a stage that does not fit."""
    return f"{what}: {clock_words(left)} were left, and it takes about {clock_words(needs)}"


def time_report(minutes: float | None, plan: dict[str, Any], *, used: float, left_out: tuple[str, ...]) -> Any:
    """Returns what a report says of the minutes: their planned and their actual use; None where none were given."""
    if minutes is None:
        return None
    return {"minutes": minutes, "plan": plan, "used_seconds": round(used, 1), "left_out": list(left_out)}
