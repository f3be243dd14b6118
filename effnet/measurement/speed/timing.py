"""Latency, throughput and memory of a model's file in its own runtime."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from effnet.errors import BundleError
from effnet.measurement.speed.pace import BUSY
from effnet.measurement.speed.rounds import is_uncertain
from effnet.runtimes.registry import files_of, find_runtime, format_of
from effnet.system.memory import says_shortage

# On a quiet machine the median is this many times the fastest of some hundred runs (measured: 1.02 to 1.05).
_MEDIAN_OF_LEAST = 1.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Latency, load time, memory and size of one file in its runtime.

    `p50_ms` and `p95_ms` are those of the least disturbed round, the one with the lowest median: other processes only
    add time. For a run of one thread that had to wait for other processes, its processor time counts. `rounds_ms` are
    the medians of all rounds, `least_ms` is the fastest run. `memory_mb` is the peak memory of the process above the
    idle runtime, in 10^6 bytes, from loading through inference of decoded images; `size_mb` is that of the file.
    `pace_ms` is the time of a fixed piece of work around the least disturbed round (see measure.pace), 0 if unknown;
    `waited` is the share of the processor time that other processes took in that round.
    """

    p50_ms: float
    p95_ms: float
    rounds_ms: tuple[float, ...]
    runs: int
    load_ms: float
    memory_mb: float
    size_mb: float
    threads: int
    batch: int
    pace_ms: float = 0.0
    least_ms: float = 0.0
    waited: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether the background load is high enough to be reported."""
        return self.waited > BUSY

    @property
    def uncertain(self) -> bool:
        """Whether background load hides the latency, which lies between `least_ms` and `p50_ms`."""
        return is_uncertain(self.p50_ms, self.least_ms, waited=self.waited, threads=self.threads)

    @property
    def latency_ms(self) -> float:
        """The latency on a quiet machine: an estimate from the fastest run if other processes were busy.

        They add time to most runs of several threads, and cold caches to those of one.
        """
        return min(self.p50_ms, _MEDIAN_OF_LEAST * self.least_ms) if self.busy else self.p50_ms

    @property
    def images_per_second(self) -> float:
        """Throughput at this batch size."""
        return 1e3 * self.batch / self.p50_ms

    def later(self, ms: float) -> "Timing":
        """Return the timing with `ms` more in every latency."""
        return replace(
            self, p50_ms=self.p50_ms + ms, p95_ms=self.p95_ms + ms, least_ms=self.least_ms + ms,
            rounds_ms=tuple(each + ms for each in self.rounds_ms),
        )  # fmt: skip


def _environment() -> dict[str, str]:
    """Return the environment in which the worker imports the same effnet as this process."""
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def time_model(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 3,
    seconds: float = 0.3,
    timeout: float = 600,
    runtime: str | None = None,
    pace_ms: float = math.inf,
) -> Timing:
    """Measure the model at `path` in a fresh process of its `runtime`, by default the one of its file name.

    Each of `rounds` rounds lasts `seconds` and at least 20 runs, after 5 warm-up runs; a few rounds are added while the
    machine's pace (see measure.pace) is slower than a finite `pace_ms` in all of them, or background load hides the
    latency. Raises BundleError if the process fails.
    """
    command = [
        sys.executable,
        "-P",  # else a user's file, such as random.py, would shadow the standard library's
        "-m",
        "effnet.measurement.speed.worker",
        str(path),
        str(threads),
        str(rounds),
        str(seconds),
        str(batch),
        find_runtime(runtime or format_of(path).runtime).home,
        str(pace_ms),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=_environment())
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"measuring {path} took more than {timeout:g} s") from error
    if done.returncode != 0:
        raise _failed(path, done.returncode, done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    calmest = min(range(len(found["rounds_ms"])), key=lambda i: np.median(found["rounds_ms"][i]))
    laps = found["rounds_ms"][calmest]
    return Timing(
        p50_ms=float(np.median(laps)),
        p95_ms=float(np.percentile(laps, 95)),
        rounds_ms=tuple(float(np.median(round_)) for round_ in found["rounds_ms"]),
        runs=sum(len(round_) for round_ in found["rounds_ms"]),
        load_ms=found["load_ms"],
        memory_mb=found["memory_bytes"] / 1e6,
        size_mb=_size_bytes(Path(path)) / 1e6,
        threads=threads,
        batch=batch,
        pace_ms=found["paces_ms"][calmest],
        least_ms=min(map(min, found["rounds_ms"])),
        waited=found["waited"][calmest],
    )


def busy_sentence(waited: float, *, threads: int, uncertain: bool = False) -> str:
    """Return the warning about a measurement on a busy machine; `waited` as in Timing."""
    found = f"The machine was busy: other processes took {waited:.0%} of the processor time"
    if threads == 1:
        return f"{found}; the latency of one thread counts only its own processor time"
    if uncertain:
        return f"{found}, which hides the latency of {threads} threads: end other programs and measure again"
    return f"{found}; end other programs and measure again if the latency matters"


def _failed(path: str | os.PathLike[str], status: int, said: str) -> BundleError:
    """Return the error for a measuring process that failed; its cause is a MemoryError if memory ran out."""
    reason = (said.strip().splitlines() or [f"exit status {status}"])[-1]
    if status == -signal.SIGKILL:
        reason = "the system killed it (signal 9), as it does when memory runs out"
    error = BundleError(f"measuring {path} failed: {reason}")
    if status == -signal.SIGKILL or says_shortage(said):
        error.__cause__ = MemoryError(reason)
    return error


def _size_bytes(path: Path) -> int:
    """Return the bytes of the model at `path`, including those of the files that belong to it."""
    return sum(file.stat().st_size for file in files_of(path))
