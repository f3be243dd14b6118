"""Two models timed in turn, so that what else the machine does falls on both alike."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effnet.measure.timing import time_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Medians of one picture in milliseconds, a number a turn; `ratio` is the median of second over first in a turn."""

    first_ms: tuple[float, ...]
    second_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How long the second takes for each millisecond of the first."""
        return statistics.median(b / a for a, b in zip(self.first_ms, self.second_ms, strict=True))


def compare_latency(first: Path, second: Path, *, threads: int = 1, turns: int = 5, seconds: float = 0.3) -> Compared:
    """Times two models' files in turn, each in a fresh process of its runtime, and who begins changes each time."""
    found: dict[Path, list[float]] = {first: [], second: []}
    for turn in range(turns):
        order: Sequence[Path] = (first, second) if turn % 2 == 0 else (second, first)
        for path in order:
            found[path].append(time_model(path, threads=threads, rounds=2, seconds=seconds).p50_ms)
    return Compared(first_ms=tuple(found[first]), second_ms=tuple(found[second]))
