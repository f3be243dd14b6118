"""Times runs of a network: what they take on a free core, as far as that can be told, and who disturbed them."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from effnet.errors import EffnetError
from effnet.measure.pace import BUSY, DISTURBED, Clock, waited_share

# A run waited for other processes if it took this many times what it worked, beyond some seconds of waits of its own.
_WAITED, _OWN_WAITS = 1.15, 1e-4
_LEAST_RUNS = 3
# A clock that shows no time for this many runs does not run.
_MOST_TIMELESS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Runs one after the other: what each took in ms, and the share of the time in which the process had no core."""

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
    """Return what runs of `run`, which computes in `threads` threads, take within `seconds`.

    There are at least three runs, and at least `least_runs` within `patience` times as many seconds more. Time is the
    sum of what runs took: a clock that jumps costs one run. Raises EffnetError if the clock stands still.
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
                    f"the clock must run while a model is timed; it showed no time in {timeless} runs: check the "
                    "machine's clock"
                )
            continue
        spent += wall
        worked_in_all += worked
        laps.append(run_seconds(wall, worked, threads=threads))
    return Round(laps_ms=tuple(round(1e3 * lap, 5) for lap in laps), waited=waited_share(spent, worked_in_all))


def run_seconds(wall: float, worked: float, *, threads: int) -> float:
    """Return what a run took of `wall` seconds, in which all threads of this process computed for `worked` seconds.

    A run of one thread that had to wait for other processes counts what it worked: long networks are never left alone
    on a busy machine. Waits that belong to a run, from one thread of the runtime to another, are short, and count.
    """
    waited = threads == 1 and wall > _WAITED * worked + _OWN_WAITS
    return worked if waited and worked > _OWN_WAITS else wall


def is_uncertain(median_ms: float, least_ms: float, *, waited: float, threads: int) -> bool:
    """Return whether other processes hide what several threads take: somewhere between their fastest run and median.

    What one thread takes is known on a busy machine as well: it is what it computes.
    """
    return threads != 1 and waited > BUSY and median_ms > DISTURBED * least_ms
