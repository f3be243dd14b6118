"""How candidates are measured while a plan is made: on this machine, or by the profile of another."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.jobs.fit.deploy.device import device_of, predicted_timing
from effnet.jobs.fit.job import Job
from effnet.measurement.speed.stopwatch import Series
from effnet.measurement.speed.timing import Timing
from effnet.planner.settings import DEFAULT_MINUTES
from effnet.planner.space import Candidate
from effnet.runtimes.untrained import write_graph

_LEAST_MS = 1e-3


@contextmanager
def measuring(job: Job, *, outside_ms: float = 0.0) -> Iterator[Callable[[Candidate], Timing]]:
    """Yield a function that measures a candidate on this machine or, with a profile, predicts it for another.

    Its latencies contain the time outside the network.
    """
    device, budget = device_of(job), job.budget
    if budget.latency_ms is not None:
        budget = dataclasses.replace(budget, latency_ms=max(_LEAST_MS, budget.latency_ms - outside_ms))
    with tempfile.TemporaryDirectory(prefix="effnet-plan-") as scratch:

        def elsewhere(found: Candidate) -> Timing:
            assert device is not None
            path = write_graph(found.spec, Path(scratch), runtime=job.target.runtime, precision=found.precision)
            return predicted_timing(device, found, size_mb=path.stat().st_size / 1e6, threads=job.config.threads)

        if device is not None:
            yield lambda found: elsewhere(found).later(outside_ms)
        else:
            series = _series(job)
            yield lambda found: job.procedure.oracle(
                found, Path(scratch), target=job.target, budget=budget, series=series
            ).later(outside_ms)


def measured_figures(candidate: Candidate, timing: Timing) -> dict[str, float]:
    """Return a candidate's figures, those that were measured in place of estimates, by the keys of the budget."""
    measured = {"latency_ms": timing.latency_ms, "memory_mb": timing.memory_mb, "size_mb": timing.size_mb}
    return {name: value for name, value in (candidate.figures | measured).items() if value is not None}


def _series(job: Job) -> Series:
    """Return the series of measurements of a plan; nothing is measured again without a latency budget."""
    stopwatch = job.procedure.stopwatch
    patience = stopwatch.planning
    if job.budget.latency_ms is None:
        patience = dataclasses.replace(patience, pauses=(), waits=False)
    minutes = job.planning.left() / 60 if job.deadline.limited else job.time_limit or DEFAULT_MINUTES
    return stopwatch.series(patience, threads=job.config.threads, minutes=minutes, left=job.planning.left)
