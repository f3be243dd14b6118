"""Mutated files through every reader: each returns a value or raises effnet's own error, in bounded time and memory.

`python -m benchmarks.attacks.fuzz KIND FOLDER FIRST COUNT` reads COUNT mutants in this process, and writes the number
of each to FOLDER/progress before reading it, so that the parent process knows which one ended the process.
"""

import faulthandler
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attacks.ground import HANG_SECONDS, MEMORY_MB, environment
from benchmarks.attacks.mutants import mutant

# Number of mutants of each kind; those read by native runtimes need a process each.
COUNTS = {
    "image": 4000,
    "json": 1500,
    "safetensors": 1000,
    "torch": 1000,
    "keras": 900,
    "tar": 900,
    "tensorflow": 200,
    "onnx": 300,
    "tflite": 100,
    "openvino": 60,
    "executorch": 40,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """Results of the mutants of one kind: their number, the faults, the longest time and the largest memory."""

    kind: str
    count: int
    faults: Sequence[str]
    slowest_seconds: float
    peak_mb: float


def fuzz(kind: str, folder: Path, *, count: int) -> Fuzzed:
    """Read `count` mutants of a kind in child processes; a process that dies is followed by another."""
    folder.mkdir(parents=True, exist_ok=True)
    first, faults, slowest, peak = 0, [], 0.0, 0.0
    while first < count:
        (folder / "progress").unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.attacks.fuzz", kind, str(folder), str(first), str(count - first)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment({}), check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            slowest, peak = max(slowest, line["seconds"]), max(peak, line["peak_mb"])
            faults += [f"{kind} {line['number']} ({line['name']}): {fault}" for fault in line["faults"]]
        if done.returncode == 0:
            break
        progress = folder / "progress"
        if not progress.is_file():
            raise RuntimeError(f"the reader of {kind} cannot begin: {done.stderr[-2000:]}")
        number = int(progress.read_text())
        faults.append(f"{kind} {number}: the process ended with {done.returncode}: {done.stderr[-300:]!r}")
        first = number + 1
    return Fuzzed(kind=kind, count=count, faults=faults, slowest_seconds=slowest, peak_mb=peak)


def _read_all(kind: str, folder: Path, first: int, count: int) -> None:
    from benchmarks.attacks.readers import open_reader

    reader = open_reader(kind, folder)
    names = list(reader.files)
    worst_seconds = worst_peak = 0.0
    for number in range(first, first + count):
        (folder / "progress").write_text(str(number))
        name = names[number % len(names)]
        path = folder / name
        path.write_bytes(mutant(reader.files[name], seed=number))
        _forget_peak()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        start = time.monotonic()
        faults = []
        try:
            reader.read(path)
        except Exception as error:
            faults = [f"{type(error).__name__}: {str(error)[:200]}"]
        seconds, peak = time.monotonic() - start, _peak_mb()
        faulthandler.cancel_dump_traceback_later()
        faults += [f"took {peak:.0f} MB"] if peak > MEMORY_MB else []
        if faults or seconds > worst_seconds or peak > worst_peak:
            worst_seconds, worst_peak = max(worst_seconds, seconds), max(worst_peak, peak)
            row = {"number": number, "name": name, "seconds": seconds, "peak_mb": peak, "faults": faults}
            print(json.dumps(row), flush=True)
        path.write_bytes(reader.files[name])


def _forget_peak() -> None:
    """Reset the peak memory, if Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


if __name__ == "__main__":
    _read_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
