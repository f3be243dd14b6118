"""Code common to all benchmarks: options, last line, record."""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.record import BenchmarkRecord, commit, rounded
from effnet.system.files import written_whole

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "records"


def options(description: str, *, n: int, cache: str = "") -> argparse.Namespace:
    """Return the options of every benchmark, and `--cache DIR` if `cache` says what is in it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/NAME.json")
    parser.add_argument("--n", type=int, default=n, help="number of measurements of each side")
    if cache:
        parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help=cache)
    return parser.parse_args()


def finish(
    name: str,
    args: argparse.Namespace,
    *,
    figure: float,
    goal: float,
    unit: str,
    better: Literal["lower", "higher"],
    samples: Mapping[str, Sequence[float]],
    details: Mapping[str, Any] | None = None,
    missed: Sequence[str] = (),
) -> None:
    """Print the last line, write the record with --record, and exit with 1 if a checked goal is missed.

    `missed` are other goals of this benchmark that were missed, in words with their figures.
    """
    record = BenchmarkRecord(
        name=name,
        figure=figure,
        goal=goal,
        unit=unit,
        better=better,
        command=command_line(),
        commit=commit(ROOT),
        samples=dict(samples),  # not of a subclass, which dataclasses cannot copy
        details=details or {},
        missed=tuple(missed),
    )
    if args.record:
        record.write(RECORDS / f"{name}.json")
    for words in missed:
        print(f"missed: {words}")
    least = "at most" if better == "lower" else "at least"
    print(f"{name}: {rounded(figure, digits=4)} {unit} (goal {least} {goal:g} {unit})")
    if args.check and not record.reached:
        sys.exit(1)


def added(
    name: str, samples: Mapping[str, Any], details: Mapping[str, Any], *, same: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a run measured together with what only the record `name` holds, whose runs are named as `earlier`.

    Exits with code 2 if a detail of `same` differs: the two could not stand in one table.
    """
    record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    for key in same:
        if record["details"][key] != details[key]:
            print(f"{key} must be that of the record, {record['details'][key]}, not {details[key]}", file=sys.stderr)
            sys.exit(2)
    run = {key: record[key] for key in ("command", "commit", "created")}
    earlier = [*record["details"].get("earlier", []), run]
    return record["samples"] | dict(samples), record["details"] | dict(details) | {"earlier": earlier}


def cached(path: Path, make: Callable[[], dict[str, Any]], *, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the finished run in the file `path`, if it has the values `asked`; else that of `make`, written there."""
    asked = dict(asked or {})
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8"))).items() >= asked.items():
        return found
    found = make() | asked
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        beside.write_text(json.dumps(found), encoding="utf-8")
    return found


def command_line() -> str:
    """Return the command that repeats this benchmark; paths are shortened to their last part."""
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    words = [word for word in words if word not in ("--record", "--check")]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words])


def seconds_of(command: Sequence[str]) -> float:
    """Return the time of a command, start and end included; raise CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def shared(*parts: str) -> Path:
    """Return a file or folder of the folder `shared` beside the repository; exit with code 2 if it is absent."""
    path = ROOT.parent.joinpath("shared", *parts)
    if not path.exists():
        print(f"this benchmark needs {Path('shared', *parts)} beside the repository; it is absent", file=sys.stderr)
        sys.exit(2)
    return path
