"""Measurement of untrained networks during planning."""

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.measurement.budget import Budget
from effnet.measurement.speed.pace import BUSY
from effnet.measurement.speed.stopwatch import Series, Stopwatch
from effnet.measurement.speed.timing import Timing
from effnet.planner.space import Candidate
from effnet.planner.target import Target
from effnet.planner.timetable import Pace
from effnet.runtimes.untrained import write_graph
from effnet.system.machine import usable_cores
from effnet.system.processor import has_vnni

# Background load makes the same file take half as much again for seconds on end (measured: 2.7 ms, then 4.1).
# A latency that is over the budget by less than this factor may be caused by it.
NEAR_MISS = 1.6
# The network that measures the speed of the machine; the share of waiting that is assumed at most.
_USUAL, _MOST_WAITED = "lite0", 0.8


def measure_random(candidate: Candidate, scratch: Path, *, target: Target, budget: Budget, series: Series) -> Timing:
    """Export a candidate with random weights into `scratch` and measure the file in the target's runtime.

    A near miss of the latency budget is doubtful, unless the candidate misses another limit.
    """
    path = write_graph(
        candidate.spec, scratch, runtime=target.runtime, precision=candidate.precision, pair_stem=has_vnni()
    )
    measured = series.measure(path, doubtful=lambda found: _nearly_meets(budget, found), runtime=target.runtime)
    return measured.counts


def _nearly_meets(budget: Budget, found: Timing) -> bool:
    """Return whether a candidate might meet the budget on a quieter machine; not if it misses another limit."""
    if budget.latency_ms is None:
        return False
    planned = budget.with_margin()
    rest = {"memory_mb": found.memory_mb, "size_mb": found.size_mb}
    return 1 < planned.share({"latency_ms": found.latency_ms}) < NEAR_MISS and not planned.failures(rest)


def machine_pace(read: float, *, target: Target, stopwatch: Stopwatch) -> Pace:
    """Return the speed of this machine, from one measurement of Lite0; an image takes `read` seconds to read."""
    spec = get_spec(_USUAL)
    with tempfile.TemporaryDirectory(prefix="effnet-pace-") as scratch:
        path = write_graph(spec, Path(scratch), runtime=target.runtime, precision="fp32")
        start = stopwatch.clock()
        timing = stopwatch.once(path, threads=1, rounds=1, seconds=0.1, runtime=target.runtime)
        took = stopwatch.clock() - start
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
