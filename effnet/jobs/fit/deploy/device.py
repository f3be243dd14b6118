"""Another device, by the profile that `effnet profile` wrote on it: predictions replace measurements."""

import os
from dataclasses import dataclass
from functools import lru_cache

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.jobs.fit.job import Job
from effnet.measurement.budget import LABELS
from effnet.measurement.profile.profile import DeviceProfile, check_profile, read_profile
from effnet.measurement.profile.table import predict
from effnet.measurement.speed.timing import Timing
from effnet.planner.space import Candidate
from effnet.runtimes.installed import runtime_version

# Weight-only precisions: they compute in fp32, whatever the type of the stored weights.
_COMPUTES_AS: dict[Precision, Precision] = {"w8": "fp32", "fp16": "fp32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Another device, and the budget figures that its profile predicts."""

    profile: DeviceProfile
    keys: tuple[str, ...]


def device_of(job: Job) -> Device | None:
    """Return the target device of a fit, None for this machine.

    Raises InputError if the profile is damaged, or of another runtime or number of threads.
    """
    if not job.target.profile:
        return None
    device, _ = _read(job.target.profile, job.target.runtime, job.config.threads)
    return device


def describe_device(job: Job) -> list[str]:
    """Return sentences that name the profile and the reasons to doubt it; none for this machine."""
    if not job.target.profile:
        return []
    device, doubts = _read(job.target.profile, job.target.runtime, job.config.threads)
    profile = device.profile
    return [
        f"Planning for {profile.machine.get('cpu') or 'another machine'} with its profile of {profile.created}: "
        f"{' and '.join(LABELS[key] for key in device.keys)} are predicted, not measured",
        *doubts,
    ]


def _read(path: str, runtime: str, threads: int) -> tuple[Device, tuple[str, ...]]:
    try:
        found = os.stat(path)
        written = (found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError:
        written = (0, 0, 0)  # read_profile reports the missing file
    return _read_once(path, written, runtime, threads)


@lru_cache(maxsize=4)
def _read_once(path: str, written: tuple[int, int, int], runtime: str, threads: int) -> tuple[Device, tuple[str, ...]]:
    """Return the device; `written` changes when the file is replaced, so that it is read again."""
    profile = read_profile(path)
    doubts = check_profile(
        profile, runtime=runtime, threads=threads, precision=profile.precisions[0], version=runtime_version(runtime)
    )
    tells = predict(profile.measured[0].spec, profile, precision=profile.precisions[0])
    keys = ("latency_ms",) if tells.memory_mb is None else ("latency_ms", "memory_mb")
    return Device(profile=profile, keys=keys), doubts


def predicted_figures(device: Device, spec: ArchSpec, precision: Precision) -> dict[str, float]:
    """Return the predicted figures of a network on the device, by the keys of the budget."""
    found = predict(spec, device.profile, precision=_COMPUTES_AS.get(precision, precision))
    return {"latency_ms": found.latency_ms} | ({} if found.memory_mb is None else {"memory_mb": found.memory_mb})


def predicted_timing(device: Device, candidate: Candidate, *, size_mb: float, threads: int) -> Timing:
    """Return the predicted timing of a candidate on the device, in the form of a measurement without rounds."""
    figures = predicted_figures(device, candidate.spec, candidate.precision)
    latency = figures["latency_ms"]
    return Timing(
        p50_ms=latency,
        p95_ms=latency,
        rounds_ms=(),
        runs=0,
        load_ms=0.0,
        memory_mb=figures.get("memory_mb", size_mb + candidate.cost.peak_memory_bytes / 1e6),
        size_mb=size_mb,
        threads=threads,
        batch=1,
    )
