"""The minutes of a fit: one deadline for all of it, and the expected duration of each stage.

Estimates follow from measurements on this machine: reading an image, a network's inference, and one whole measurement
of a file, the unit of everything that starts a process, writes files or draws.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from effnet.data.datasets import Dataset
from effnet.measurement.sample import CALIBRATED

# The share of all minutes that planning may take, and the shares of the rest for int8 and fine-tuning after pruning.
PLANNING_SHARE, INT8_SHARE, PRUNING_SHARE = 0.25, 0.3, 0.5
# Durations in measurements, on a quiet machine 1 to 2 s each: exports, their check, the last measurement and the
# reports; the reports alone; a head without its features; a quantization step, whose file is measured in turns with
# another.
_FINISHING, _REPORT, _HEAD, _INT8_STEP = 4.0, 1.5, 1.0, 6.0
# Estimates are no more exact than this: a stage is begun if this share of its estimate is left.
NEARLY = 0.8
# int8 gets at most this share of the time that training competes for, and the later stages at most this share of all.
MOST_INT8, _MOST_RESERVED = 0.7, 0.5
# The cost of calibration and bias correction for int8 on one core, in inferences of the calibration images: 198 images
# through Lite2 took 56 s, their inference 9.
_CALIBRATION = 6
# The least time limit of a stage, in minutes.
_LEAST_MINUTES = 0.01

USES = {
    "before": "reading and planning",
    "learning": "training",
    "unlabelled": "students of the unlabelled images",
    "change": "pruning and fine-tuning",
    "int8": "int8",
    "finishing": "export, verification and report",
}
"""The uses of the time, in words; "before" is the time that had passed when it was planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The `end` of the work by `clock`, and its limit in `seconds`; both are infinite without --minutes."""

    seconds: float = math.inf
    end: float = math.inf
    clock: Callable[[], float] = time.monotonic

    @property
    def limited(self) -> bool:
        """Whether there is an end."""
        return math.isfinite(self.end)

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, self.end - self.clock())

    def used(self) -> float:
        """Return the seconds used since the start, which may be more than there were; 0 without a deadline."""
        return self.seconds - (self.end - self.clock()) if self.limited else 0.0

    def at_most(self, seconds: float) -> "Deadline":
        """Return a deadline in `seconds` from now, or this one if it is earlier."""
        return self if not self.limited else replace(self, end=min(self.end, self.clock() + seconds))

    def earlier(self, seconds: float) -> "Deadline":
        """Return a deadline `seconds` before this one."""
        return replace(self, end=self.end - seconds)


UNLIMITED = Deadline()


def deadline_of(
    minutes: float | None, *, clock: Callable[[], float] = time.monotonic, began: float | None = None
) -> Deadline:
    """Return the deadline of a fit that `began` at this time of the clock; by default now."""
    if minutes is None:
        return Deadline(clock=clock)
    return Deadline(seconds=60 * minutes, end=(clock() if began is None else began) + 60 * minutes, clock=clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The measured speed of this machine, in seconds.

    `read` is the reading of an image on all `cores`, `mac` a multiply-accumulate of an exported network on one of
    them, and `measure` one measurement of a file, in a process of its own.
    """

    read: float = 0.0
    mac: float = 0.0
    measure: float = 0.0
    cores: int = 1

    def answer(self, images: int, macs: float) -> float:
        """Return the duration of the inference of a network with `macs` MACs on `images` images."""
        return images * (self.read + self.mac * macs / self.cores)

    def calibrated(self, dataset: Dataset) -> int:
        """Return the cost of an int8 file, in inferences of an image."""
        return min(CALIBRATED, len(dataset.train)) * _CALIBRATION * self.cores

    @property
    def report(self) -> float:
        """The duration of writing the reports."""
        return _REPORT * self.measure

    def finishing(self, dataset: Dataset, macs: float) -> float:
        """Return the duration from a trained network to its verified bundle with its reports."""
        return _FINISHING * self.measure + self.answer(len(dataset.val) + len(dataset.test), macs)

    def head(self, dataset: Dataset, macs: float) -> float:
        """Return the duration of training a head, on one view of each image."""
        return _HEAD * self.measure + self.answer(len(dataset.train) + len(dataset.val), macs)

    def int8(self, dataset: Dataset, macs: float, *, steps: int) -> float:
        """Return the duration of int8 in `steps` steps, with calibration and test."""
        other = (steps - 1) * (_INT8_STEP * self.measure + self.answer(len(dataset.val), macs))
        return self.int8_step(dataset, macs) + other + self.answer(2 * len(dataset.test), macs)

    def int8_step(self, dataset: Dataset, macs: float) -> float:
        """Return the duration of one quantization step: a file written, scored, and timed in turns with another."""
        writing = self.calibrated(dataset) * self.mac * macs / self.cores
        return writing + _INT8_STEP * self.measure + self.answer(len(dataset.val), macs)

    def epoch(self, dataset: Dataset, macs: float, *, images_per_second: float) -> float:
        """Return the duration of an epoch with its validation, at this speed of training steps."""
        steps = len(dataset.train) * (1 / images_per_second + self.read)
        return steps + self.answer(len(dataset.val), macs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The remaining seconds by their use; without a deadline those of training are infinite."""

    learning: float
    unlabelled: float = 0.0
    change: float = 0.0
    int8: float = 0.0
    finishing: float = 0.0

    @property
    def later(self) -> float:
        """Seconds for what follows learning."""
        return self.unlabelled + self.change + self.int8 + self.finishing

    def in_words(self) -> tuple[str, ...]:
        """Return a line for each use that has time."""
        rows = asdict(self).items()
        return tuple(f"  {clock_words(seconds):>8}  {USES[name]}" for name, seconds in rows if seconds > 0)

    def to_dict(self) -> dict[str, float]:
        """Return the seconds, rounded, for the report."""
        found = {name: round(seconds, 1) for name, seconds in asdict(self).items()}
        return {name: seconds for name, seconds in found.items() if seconds or name != "unlabelled"}


def use_of(
    left: float, pace: Pace, dataset: Dataset, macs: float, *, int8_steps: int, changed: bool, students: float = 0.0
) -> Use:
    """Return the use of `left` seconds for a network of `macs` MACs that is trained, and may be changed and quantized.

    `int8_steps` is the least number of steps to int8, 0 without int8. The stages after training are reserved first,
    because without them there is no bundle; training gets the rest, of which students of unlabelled images have the
    share `students`.
    """
    if math.isinf(left):
        return Use(learning=math.inf)
    finishing = reserve(left, pace.finishing(dataset, macs))
    rest = left - finishing
    rounding = max(pace.int8(dataset, macs, steps=int8_steps), INT8_SHARE * rest) if int8_steps else 0.0
    if rounding > MOST_INT8 * rest:
        rounding = 0.0
    rest -= rounding
    change = PRUNING_SHARE * rest if changed else 0.0
    learning = rest - change
    own = students * learning
    return Use(learning=learning - own, unlabelled=own, change=change, int8=rounding, finishing=finishing)


def minutes_of(seconds: float) -> float:
    """Return a stage's `seconds` as minutes, at least the fewest that stages accept."""
    return max(_LEAST_MINUTES, seconds / 60)


def reserve(left: float, seconds: float) -> float:
    """Return the part of `left` reserved for later stages: at most half, however slow the machine is."""
    return min(seconds, _MOST_RESERVED * left)


def clock_words(seconds: float) -> str:
    """Return seconds in words for the terminal: 45 s, 3:20 min."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def not_enough(what: str, *, needs: float, left: float) -> str:
    """Return the sentence for a stage that does not fit."""
    return f"{what}: {clock_words(max(0.0, left))} were left, but it takes about {clock_words(needs)}"
