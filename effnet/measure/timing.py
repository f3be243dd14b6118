"""Latency, throughput and memory of a model's file, as the device will see them."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.errors import BundleError
from effnet.runtime.formats import Runtime, format_of
from effnet.system.memory import says_shortage


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one file takes in its runtime.

    `p50_ms` and `p95_ms` are those of the calmest round, the one with the lowest median: other processes only
    ever add time. `rounds_ms` are the medians of all rounds. `memory_mb` is the peak memory of the process
    beyond the idle runtime, in 10^6 bytes, from loading through inference; `size_mb` is the file's. `pace_ms` is what
    a fixed piece of work took around the calmest round (see measure.pace); 0 where that is not known.
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

    @property
    def images_per_second(self) -> float:
        """Throughput at this batch size."""
        return 1e3 * self.batch / self.p50_ms


def _environment() -> dict[str, str]:
    """Lets the worker find the effnet that runs here, wherever it was imported from."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def time_model(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 3,
    seconds: float = 0.3,
    timeout: float = 600,
    runtime: Runtime | None = None,
    pace_ms: float = math.inf,
) -> Timing:
    """Measures the model at `path` in a fresh process of its `runtime`, by default the one that its name tells.

    Each of `rounds` rounds lasts `seconds` and at least 20 runs, behind 5 unmeasured ones; there are a few rounds more
    while the machine's pace (see measure.pace) is slower than `pace_ms` in all of them. Raises BundleError where the
    process fails.
    """
    command = [
        sys.executable,
        "-P",  # else a file of the user's, such as random.py, would stand in for the standard library's
        "-m",
        "effnet.measure.worker",
        str(path),
        str(threads),
        str(rounds),
        str(seconds),
        str(batch),
        runtime or format_of(path).runtime,
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
    )


def _failed(path: str | os.PathLike[str], status: int, said: str) -> BundleError:
    """Return the error for a measuring process that failed; its cause tells where memory ran out."""
    reason = (said.strip().splitlines() or [f"exit status {status}"])[-1]
    if status == -signal.SIGKILL:
        reason = "the system killed it (signal 9), as it does when memory runs out"
    error = BundleError(f"measuring {path} failed: {reason}")
    if status == -signal.SIGKILL or says_shortage(said):
        error.__cause__ = MemoryError(reason)
    return error


# Its name before there were other runtimes.
time_onnx = time_model


def _size_bytes(path: Path) -> int:
    """Returns the bytes of the model at `path`, with those of the files that its format has beside it."""
    found = path.stat().st_size
    if path.suffix == ".xml":  # OpenVINO's weights lie beside its graph
        found += path.with_suffix(".bin").stat().st_size
    return found
