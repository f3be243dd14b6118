"""The budget's figures of a finished file: measured here, or predicted for another device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.jobs.fit.deploy.device import device_of, predicted_figures
from effnet.jobs.fit.deploy.export import Deployed
from effnet.jobs.fit.job import Job
from effnet.measurement.budget import Budget, say
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.speed.timing import Timing, busy_sentence
from effnet.planner.timetable import Deadline
from effnet.runtimes.registry import RUNTIMES
from effnet.tasks.known import KnownScore, score_macs

# A file without a budget is measured in shorter rounds: nothing depends on its latency.
_UNASKED_SECONDS = 0.1


def figures_of(
    deployed: Deployed, job: Job, *, until: Deadline, outside_ms: float = 0.0
) -> tuple[Timing, dict[str, float], tuple[dict[str, float], ...], tuple[str, ...]]:
    """Return the measurements of the file; for another device, its predicted figures replace the measured ones.

    `outside_ms` is the time of each image outside the file, part of its latency.
    """
    device, spec = device_of(job), deployed.config.arch
    known = deployed.config.known if RUNTIMES[deployed.format.runtime].scored else None
    predicted: dict[str, Any] = dict.fromkeys(device.keys) if device else {}
    here = replace(job.budget, **predicted)
    timing, measured, measurements = _measure(
        deployed.path, spec, here, threads=job.config.threads, until=until, stopwatch=job.procedure.stopwatch,
        outside_ms=outside_ms, known=known,
    )  # fmt: skip
    if device is None:
        return timing, measured, measurements, ()
    measured |= predicted_figures(device, spec, deployed.format.precision)
    return timing, measured, measurements, device.keys


def _measure(
    path: Path,
    spec: ArchSpec,
    budget: Budget,
    *,
    threads: int,
    until: Deadline,
    stopwatch: Stopwatch,
    outside_ms: float,
    known: KnownScore | None = None,
) -> tuple[Timing, dict[str, float], tuple[dict[str, float], ...]]:
    """Measure the file, and re-measure it while it misses the budget on latency or memory.

    Return the timing and figures that count, and all measurements. Those that count are of the first measurement that
    meets the budget or, if none does, of the one nearest to it. No measurement that might end after `until` is begun,
    except the first.
    """
    total = cost(spec)
    params = total.params + sum(array.size for array in known.arrays.values()) if known else total.params
    extra = score_macs(known, classes=spec.num_classes, channels=spec.feature_channels) if known else 0

    def counts(timing: Timing) -> dict[str, float]:
        return {"params": params, "macs": total.macs + extra, "size_mb": timing.size_mb}

    def figures(timing: Timing) -> dict[str, float]:
        return {"latency_ms": timing.p50_ms + outside_ms, **counts(timing), "memory_mb": timing.memory_mb}

    def doubtful(timing: Timing) -> bool:
        # Counts do not change however often they are measured.
        return not budget.failures(counts(timing)) and bool(budget.failures(figures(timing)))

    patience = stopwatch.finished
    if not budget.asked():
        patience = replace(patience, seconds=_UNASKED_SECONDS)
    found = stopwatch.measure(
        path,
        threads=threads,
        patience=patience,
        left=until.left,
        doubtful=doubtful,
        rank=lambda timing: budget.share(figures(timing)),
    )
    measurements = tuple(figures(timing) | {"waited": round(timing.waited, 3)} for timing in found.timings)
    return found.timing, figures(found.counts), measurements


def why_undecided(
    budget: Budget, timing: Timing, measured: dict[str, float], missed: tuple[str, ...], *, outside_ms: float = 0.0
) -> str:
    """Return a sentence if background load hides whether the latency budget is met and nothing else is missed."""
    over = budget.failures(measured)
    kept_at_least = not budget.failures(measured | {"latency_ms": timing.least_ms + outside_ms})
    if not (over and missed == over and kept_at_least and timing.uncertain):
        return ""
    assert budget.latency_ms is not None  # else nothing but the latency would be missed
    least, most = (say("latency_ms", each + outside_ms) for each in (timing.least_ms, timing.p50_ms))
    return (
        f"{busy_sentence(timing.waited, threads=timing.threads, uncertain=True)}. Its fastest run took {least}, the "
        f"median {most}; the budget is {say('latency_ms', budget.latency_ms)}"
    )
