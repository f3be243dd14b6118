"""Measurement of untrained networks during planning."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.errors import BundleError
from effnet.measurement.budget import Budget
from effnet.measurement.pace import BUSY, DISTURBED
from effnet.measurement.timing import Timing, time_model
from effnet.planner.space import Candidate
from effnet.planner.target import Target
from effnet.planner.timetable import Pace
from effnet.runtimes.untrained import write_graph
from effnet.system.machine import usable_cores
from effnet.system.processor import has_vnni

# Background load makes the same file take half as much again for seconds on end (measured: 2.7 ms, then 4.1).
# A latency that is over the budget by less than this factor may be caused by it.
NEAR_MISS = 1.6
# Pauses in seconds before it is re-measured; a miss on a quiet machine is re-measured at most twice.
_PAUSES, _LOOKS = (0.5, 2.0, 5.0), 2
# Pauses and re-measurements take at most this many seconds of a plan, and this share of the time that training may
# take.
_PATIENCE, _PATIENCE_SHARE = 45.0, 0.2
# The network that measures the speed of the machine; the share of waiting that is assumed at most.
_USUAL, _MOST_WAITED = "lite0", 0.8


def patient(
    measure: Callable[[Candidate, float], Timing],
    budget: Budget,
    *,
    calm_ms: float = math.inf,
    minutes: float = math.inf,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Candidate], Timing]:
    """Return a function that measures as `measure` does, and re-measures under background load.

    `budget` has a latency. `measure(candidate, pace_ms)`: above `pace_ms` the machine counts as busy. `calm_ms` is the
    pace of the quiet machine, if known; `minutes` is the time limit of training. Of several measurements of a candidate
    the quietest counts: other processes only ever add time. The latency of one thread needs no quiet machine.
    """
    left, calm = min(_PATIENCE, 60 * minutes * _PATIENCE_SHARE), calm_ms

    def again(candidate: Candidate) -> Timing:
        nonlocal left, calm
        found = measure(candidate, DISTURBED * calm)
        for number, seconds in enumerate(_PAUSES):
            calm = min(calm, found.pace_ms or calm)
            doubtful = number < _LOOKS and _nearly_keeps(budget, found)
            if left < seconds or not (doubtful or found.uncertain or found.pace_ms > DISTURBED * calm):
                break
            left -= seconds
            pause(seconds)
            start = clock()
            try:
                found = min(found, measure(candidate, DISTURBED * calm), key=lambda t: (t.uncertain, t.latency_ms))
            except BundleError:  # the earlier measurement still holds
                break
            left -= max(0.0, clock() - start)
        return found

    return again


def _nearly_keeps(budget: Budget, found: Timing) -> bool:
    """Return whether a candidate might meet the budget on a quieter machine; not if it misses another limit."""
    assert budget.latency_ms is not None
    planned = budget.with_margin()
    rest = {"memory_mb": found.memory_mb, "size_mb": found.size_mb}
    return 1 < planned.share({"latency_ms": found.latency_ms}) < NEAR_MISS and not planned.failures(rest)


def measure_random(
    candidate: Candidate, scratch: Path, *, target: Target, threads: int, pace_ms: float = math.inf
) -> Timing:
    """Export a candidate with random weights into `scratch` and measure the file in the target's runtime.

    It takes somewhat longer while the machine is slower than `pace_ms`.
    """
    path = write_graph(
        candidate.spec, scratch, runtime=target.runtime, precision=candidate.precision, pair_stem=has_vnni()
    )
    return time_model(path, threads=threads, rounds=3, seconds=0.1, runtime=target.runtime, pace_ms=pace_ms)


def machine_pace(
    read: float,
    *,
    target: Target,
    measure: Callable[..., Timing] = time_model,
    clock: Callable[[], float] = time.monotonic,
) -> Pace:
    """Return the speed of this machine, from one measurement of Lite0; an image takes `read` seconds to read."""
    spec = get_spec(_USUAL)
    with tempfile.TemporaryDirectory(prefix="effnet-pace-") as scratch:
        path = write_graph(spec, Path(scratch), runtime=target.runtime, precision="fp32")
        start = clock()
        timing = measure(path, threads=1, rounds=1, seconds=0.1, runtime=target.runtime)
        took = clock() - start
    # Remove the time that it waited for a core.
    seconds = 1e-3 * timing.latency_ms / (1 - min(_MOST_WAITED, timing.waited))
    return Pace(read=read, mac=seconds / cost(spec).macs, measure=took, cores=usable_cores())


def busy_planning(table: Sequence[Candidate], *, threads: int) -> str:
    """Return a warning about candidates that were measured while the machine was busy; empty if none was."""
    measured = [c for c in table if c.latency_ms is not None]
    busy = [c.waited for c in measured if c.waited > BUSY]
    if not busy:
        return ""
    found = (
        f"The machine was busy while candidates were measured: other processes took up to {max(busy):.0%} of the "
        f"processor time ({len(busy)} of {len(measured)} candidates)"
    )
    if threads == 1:
        return f"{found}; the latency of one thread counts only the time that it computed"
    return f"{found}; the latency of {threads} threads is that of the fastest runs, so plan again on a quiet machine"


@lru_cache(maxsize=256)
def training_speed(spec: ArchSpec) -> float:
    """Return training images per second of `spec`, measured once."""
    from effnet.training.speed import train_speed

    return train_speed(spec)
