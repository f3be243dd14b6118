"""Time two models in turn, so that background load affects both equally."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from effnet.measurement.turns import time_two


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Median latencies of one image in milliseconds, one per turn; `ratio` is the median of second over first.

    `second_mb` is the peak memory of the second, in 10^6 bytes.
    """

    first_ms: tuple[float, ...]
    second_ms: tuple[float, ...]
    second_mb: float | None = None

    @property
    def ratio(self) -> float:
        """The second model's latency divided by the first's, the median over turns."""
        return statistics.median(b / a for a, b in zip(self.first_ms, self.second_ms, strict=True))


def compare_latency(first: Path, second: Path, *, threads: int = 1, turns: int = 5, seconds: float = 0.3) -> Compared:
    """Time two models' files in turn, each in a fresh process of its runtime; raise BundleError if one fails."""
    one, other = time_two(first, second, threads=threads, turns=turns, seconds=seconds)
    return Compared(first_ms=one.rounds_ms, second_ms=other.rounds_ms, second_mb=other.memory_mb)
