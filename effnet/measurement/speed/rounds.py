"""Times runs of a network: estimates their time on a free core and detects background load."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from effnet.errors import EffnetError
from effnet.measurement.speed.pace import BUSY, DISTURBED, Clock, waited_share

# A run waited for other processes if its wall time is more than this many times its processor time plus its own waits.
_WAITED, _OWN_WAITS = 1.15, 1e-4
_LEAST_RUNS = 3
# A clock that does not advance for this many runs stands still.
_MOST_TIMELESS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Consecutive runs: the time of each in ms, and the share of the time in which the process had no core."""

    laps_ms: tuple[float, ...]
    waited: float

    @property
    def median_ms(self) -> float:
        """The median of the runs."""
        return statistics.median(self.laps_ms)

    @property
    def least_ms(self) -> float:
        """The fastest run."""
        return min(self.laps_ms)


def time_round(
    run: Callable[[], object],
    *,
    seconds: float,
    threads: int,
    least_runs: int = _LEAST_RUNS,
    patience: float = 0.0,
    clock: Clock | None = None,
) -> Round:
    """Return the times of runs of `run`, which computes in `threads` threads, within `seconds`.

    There are at least three runs; up to `patience` times more seconds are spent to reach `least_runs`. Time is the
    sum of the runs' times: a clock that jumps costs one run. Raises EffnetError if the clock stands still.
    """
    clock = clock or Clock()
    laps: list[float] = []
    spent = worked_in_all = 0.0
    timeless = 0
    while spent < seconds or len(laps) < _LEAST_RUNS or (len(laps) < least_runs and spent < (1 + patience) * seconds):
        start, worked = clock.wall(), clock.worked()
        run()
        wall, worked = clock.wall() - start, clock.worked() - worked
        if wall <= 0:  # it stood still or was set back
            timeless += 1
            if timeless > _MOST_TIMELESS:
                raise EffnetError(
                    f"the clock must advance while a model is timed; it did not in {timeless} runs: check the "
                    "machine's clock"
                )
            continue
        spent += wall
        worked_in_all += worked
        laps.append(run_seconds(wall, worked, threads=threads))
    return Round(laps_ms=tuple(round(1e3 * lap, 5) for lap in laps), waited=waited_share(spent, worked_in_all))


def run_seconds(wall: float, worked: float, *, threads: int) -> float:
    """Return the time of a run of `wall` seconds, in which all threads of this process computed for `worked` seconds.

    For a run of one thread that had to wait for other processes, it is the processor time: on a busy machine a long run
    is always interrupted. Waits of the run itself, of one runtime thread for another, are short, and count.
    """
    waited = threads == 1 and wall > _WAITED * worked + _OWN_WAITS
    return worked if waited and worked > _OWN_WAITS else wall


def is_uncertain(median_ms: float, least_ms: float, *, waited: float, threads: int) -> bool:
    """Return whether background load makes the latency of several threads uncertain, between fastest run and median.

    The latency of one thread is known on a busy machine as well: it is its processor time.
    """
    return threads != 1 and waited > BUSY and median_ms > DISTURBED * least_ms
