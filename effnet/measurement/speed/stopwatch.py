"""Timing of models' files on a machine that other processes use as well: one policy for every measurement.

Other processes only ever add time. So a file is measured in several rounds, each in a fresh process or in a row, and
the least disturbed counts; files that are compared take turns; and a figure that matters is measured again after a
pause, while background load may be its reason.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.errors import BundleError
from effnet.measurement.speed.pace import DISTURBED, calm_pace_ms
from effnet.measurement.speed.timing import Timing, time_model

Rank = Callable[[Timing], Any]
"""Orders measurements of one file: the least counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How thoroughly a file is measured: in `rounds` of `seconds`, and again after each of the `pauses` if needed.

    A doubtful figure is measured again at most `looks` times. With `waits`, the pace of the quiet machine is measured
    once, before the first file, and every file is measured again as long as the machine is slower or the latency is
    uncertain; otherwise the pace is measured before each repetition. Each measurement knows the pace, and adds rounds
    while the machine is slower, if `extension` seconds are left before the deadline. A repetition is begun only if
    `reserve` times the previous measurement's duration is left. Pauses and repetitions of all files take at most
    `most_seconds`, and the share `most_share` of the time for training.
    """

    rounds: int
    seconds: float
    pauses: tuple[float, ...] = ()
    looks: int = 0
    waits: bool = False
    extension: float = 0.0
    reserve: float = 0.0
    most_seconds: float = math.inf
    most_share: float = math.inf


# Planning measures many untrained networks, each briefly. A miss on a quiet machine is measured again at most twice.
# Rounds that are added under background load may take a quarter of a minute.
PLANNING = Patience(
    rounds=3,
    seconds=0.1,
    pauses=(0.5, 2.0, 5.0),
    looks=2,
    waits=True,
    extension=40.0,
    most_seconds=45.0,
    most_share=0.2,
)
# The finished file decides: another half minute is little beside another training. A measurement that is extended under
# background load may take three times as long as the one before.
FINISHED = Patience(rounds=5, seconds=0.3, pauses=(1, 2, 4, 6, 8, 10), looks=6, reserve=3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One file's measurements in their order, and the one that `counts`."""

    counts: Timing
    timings: tuple[Timing, ...]

    @property
    def timing(self) -> Timing:
        """The timing that counts, with the fastest run of all measurements: the least latency of the file."""
        return replace(self.counts, least_ms=min(each.least_ms for each in self.timings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The timings of two files that were measured in turns."""

    first: Timing
    second: Timing

    @property
    def ratio(self) -> float:
        """The second file's latency divided by the first's, the median over rounds."""
        rounds = zip(self.first.rounds_ms, self.second.rounds_ms, strict=True)
        return statistics.median(second / first for first, second in rounds)

    @property
    def speed(self) -> float:
        """The speed of the second file relative to the first, by their least disturbed rounds."""
        return self.first.latency_ms / self.second.latency_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """Everything that times files: its parts may be replaced, and are production's by default.

    `once` measures a file once, as `time_model`; `quiet_pace` returns the pace in ms of the quiet machine for a number
    of threads; `clock` counts seconds and `pause` waits for some. `planning` and `finished` are the patience with
    candidates of a plan and with the finished file.
    """

    once: Callable[..., Timing] = time_model
    quiet_pace: Callable[[int], float] = calm_pace_ms
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    planning: Patience = PLANNING
    finished: Patience = FINISHED

    def measure(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 1,
        patience: Patience | None = None,
        left: Callable[[], float] = lambda: math.inf,
        doubtful: Callable[[Timing], bool] = lambda found: False,
        rank: Rank | None = None,
    ) -> Measured:
        """Measure one file, by default with the patience of a finished one; the rest is as in `Series`."""
        series = self.series(patience or self.finished, threads=threads, left=left)
        return series.measure(path, doubtful=doubtful, rank=rank)

    def series(
        self,
        patience: Patience,
        *,
        threads: int = 1,
        minutes: float = math.inf,
        left: Callable[[], float] = lambda: math.inf,
    ) -> "Series":
        """Return a series of measurements; `minutes` are those for training, `left` the seconds until the deadline."""
        spare = min(patience.most_seconds, 60 * minutes * patience.most_share)
        return Series(self, patience, threads=threads, spare=spare, left=left)

    def in_turns(
        self,
        paths: Mapping[str, Path],
        *,
        threads: int = 1,
        batch: int = 1,
        rounds: int = 3,
        seconds: float = 0.3,
        progress: Callable[[], None] | None = None,
    ) -> dict[str, Timing | BundleError]:
        """Measure each file once per round, each time in a process of its own, and return a timing or error for each.

        A file that fails has its error, and is not tried again. `progress` is called after each measurement.
        """
        found: dict[str, list[Timing]] = {name: [] for name in paths}
        failed: dict[str, BundleError] = {}
        for number in range(rounds):
            # Forwards, then backwards: a machine that gets hotter or quieter favours none.
            for name in list(paths)[:: 1 if number % 2 == 0 else -1]:
                if name not in failed:
                    try:
                        timing = self.once(paths[name], threads=threads, batch=batch, rounds=1, seconds=seconds)
                        found[name].append(timing)
                    except BundleError as error:
                        failed[name] = error
                if progress:
                    progress()
        return {name: failed[name] if name in failed else joined(found[name]) for name in paths}

    def compare(
        self, first: Path, second: Path, *, threads: int = 1, rounds: int = 5, seconds: float = 0.3
    ) -> Compared:
        """Measure two files in turns; raise BundleError if one fails."""
        found = self.in_turns({"first": first, "second": second}, threads=threads, rounds=rounds, seconds=seconds)
        for timing in found.values():
            if isinstance(timing, BundleError):
                raise timing
        return Compared(**found)  # type: ignore[arg-type]


class Series:
    """Measurements of files in a row: they share the time for repetitions, and the pace of the quiet machine."""

    def __init__(
        self, watch: Stopwatch, patience: Patience, *, threads: int, spare: float, left: Callable[[], float]
    ) -> None:
        """Start a series; its pauses and repetitions take at most `spare` seconds."""
        self._watch, self._patience, self._threads = watch, patience, threads
        self._spare, self._left = spare, left
        self._quiet_ms = watch.quiet_pace(threads) if patience.waits else math.inf

    def measure(
        self,
        path: str | os.PathLike[str],
        *,
        doubtful: Callable[[Timing], bool] = lambda found: False,
        rank: Rank | None = None,
        runtime: str | None = None,
    ) -> Measured:
        """Measure a file, and again after a pause while its figures are `doubtful` or background load disturbs them.

        `rank` says which measurement counts: the quietest one by default. A repetition that fails ends the series of
        this file; raises BundleError if the first measurement fails.
        """
        rank = rank or quietness
        found, took = self._once(path, runtime)
        timings = [found]
        for number, pause in enumerate(self._patience.pauses):
            doubt = number < self._patience.looks and doubtful(found)
            if not self._again(found, pause, took, doubt=doubt):
                break
            self._spare -= pause
            self._watch.pause(pause)
            try:
                timing, took = self._once(path, runtime)
            except BundleError:  # the earlier measurement still holds
                break
            self._spare -= max(0.0, took)
            timings.append(timing)
            found = min(found, timing, key=rank)
        return Measured(counts=found, timings=tuple(timings))

    def _again(self, found: Timing, pause: float, took: float, *, doubt: bool) -> bool:
        """Return whether to measure again after a pause: for a reason, and if there is time."""
        patience = self._patience
        if patience.waits:
            self._quiet_ms = min(self._quiet_ms, found.pace_ms or self._quiet_ms)
            doubt = doubt or found.uncertain or found.pace_ms > DISTURBED * self._quiet_ms
        elif doubt:
            self._quiet_ms = min(self._quiet_ms, self._watch.quiet_pace(self._threads))
        late = patience.reserve > 0 and self._left() < pause + patience.reserve * took
        return doubt and self._spare >= pause and not late

    def _once(self, path: str | os.PathLike[str], runtime: str | None) -> tuple[Timing, float]:
        """Measure a file once; return the duration in seconds as well."""
        patience, threads = self._patience, self._threads
        pace = DISTURBED * self._quiet_ms if self._left() > patience.extension else math.inf
        start = self._watch.clock()
        found = self._watch.once(
            path, threads=threads, rounds=patience.rounds, seconds=patience.seconds, runtime=runtime, pace_ms=pace
        )
        return found, self._watch.clock() - start


def quietness(found: Timing) -> tuple[bool, float]:
    """Return the rank of a measurement by which the quietest counts."""
    return found.uncertain, found.latency_ms


def joined(timings: Sequence[Timing]) -> Timing:
    """Return one timing merged from several of one file: that of the least disturbed, load and memory their medians."""
    quietest = min(timings, key=lambda timing: timing.p50_ms)
    return replace(
        quietest,
        rounds_ms=tuple(lap for timing in timings for lap in timing.rounds_ms),
        runs=sum(timing.runs for timing in timings),
        load_ms=statistics.median(timing.load_ms for timing in timings),
        memory_mb=statistics.median(timing.memory_mb for timing in timings),
        least_ms=min(timing.least_ms for timing in timings),
    )
