"""Measures one file in a process of its own.

Its arguments are MODEL THREADS ROUNDS SECONDS BATCH HOME PACE, as in `measure`; HOME is the Python package of the
runtime. Prints one line of JSON. A fresh process makes memory comparable between models and leaves nothing behind.
"""

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from effnet.errors import EffnetError
from effnet.measurement.speed.pace import pace_of
from effnet.measurement.speed.rounds import Round, is_uncertain, time_round
from effnet.runtimes.registry import open_engine, preload, register_home

_WARM_UP_RUNS = 5
_MIN_RUNS = 20
# A round of a slow network may last this many times longer to reach its minimum number of runs.
_MOST_PATIENCE = 10
# At most this many rounds are added while background load disturbs even the best: it mostly lasts tenths of seconds.
_MORE_ROUNDS = 12


def _resident_and_peak() -> tuple[int, int]:
    """Return resident and peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return tuple(1024 * int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    # macOS: the peak is in bytes, and the resident size is only available from ps, in kB.
    resident = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return 1024 * int(resident.stdout), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """Reset the peak memory, if Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def measure(
    path: Path, *, threads: int, rounds: int, seconds: float, batch: int, runtime: str, pace: float
) -> dict[str, object]:
    """Return load time, peak memory above the idle runtime, and the latencies, pace and waits of each round.

    Times are in ms; waits are the share of the processor time that other processes took. Rounds are added while no pace
    is as fast as `pace`, or background load hides the file's latency.
    """
    preload(runtime)
    _forget_peak()
    before, _ = _resident_and_peak()
    start = time.perf_counter()
    engine = open_engine(path, threads=threads, runtime=runtime)
    load_ms = 1e3 * (time.perf_counter() - start)
    # Any varied image will do; numpy.random would add its own import to the memory measured.
    images = np.resize(np.arange(251, dtype=np.uint8), (batch, *engine.size, engine.channels))
    for _ in range(_WARM_UP_RUNS):
        engine.run(images)
    _, peak = _resident_and_peak()
    found: list[Round] = []
    paces: list[float] = []

    def disturbed() -> bool:
        if pace == math.inf:
            return False
        calmest = min(found, key=lambda round_: round_.median_ms)
        least = min(round_.least_ms for round_ in found)
        return min(paces) > pace or is_uncertain(calmest.median_ms, least, waited=calmest.waited, threads=threads)

    while len(found) < rounds or (disturbed() and len(found) < rounds + _MORE_ROUNDS):
        round_, pace_around = _round(lambda: engine.run(images), seconds, threads)
        found.append(round_)
        paces.append(pace_around)
    return {
        "load_ms": load_ms,
        "memory_bytes": max(0, peak - before),
        "rounds_ms": [round_.laps_ms for round_ in found],
        "paces_ms": paces,
        "waited": [round_.waited for round_ in found],
    }


def _round(run: Callable[[], object], seconds: float, threads: int) -> tuple[Round, float]:
    """Return a round and the pace of the machine around it.

    Threads of a runtime also wait for each other, so with several threads the share that other processes took is that
    of the pace, before or after, whichever is less, as the system may need a moment to give each thread a core.
    """
    before = pace_of(threads)
    found = time_round(run, seconds=seconds, threads=threads, least_runs=_MIN_RUNS, patience=_MOST_PATIENCE)
    after = pace_of(threads)
    if threads != 1:
        found = replace(found, waited=min(before.waited, after.waited))
    return found, (before.ms + after.ms) / 2


if __name__ == "__main__":
    model, threads, rounds, seconds, batch, home, pace = sys.argv[1:]
    try:
        result = measure(
            Path(model),
            threads=int(threads),
            rounds=int(rounds),
            seconds=float(seconds),
            batch=int(batch),
            runtime=register_home(home),
            pace=float(pace),
        )
    except EffnetError as error:
        sys.exit(str(error))
    print(json.dumps(result))
