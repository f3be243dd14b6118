"""Interleaved measurement of several models' files, so that background load affects all of them alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from effnet.errors import BundleError
from effnet.measurement.timing import Timing, time_model

Measure = Callable[..., Timing]


def time_in_turns(
    paths: Mapping[str, Path],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 3,
    seconds: float = 0.3,
    progress: Callable[[], None] | None = None,
    measure: Measure = time_model,
) -> dict[str, Timing | BundleError]:
    """Measure each file once per round, each time in a process of its own, and return a timing or error for each.

    The rounds of one file are merged: latency is that of its least disturbed round, load time and memory are medians. A
    file that fails has its error, and is not tried again. `progress` is called after each measurement; `measure`
    measures one file.
    """
    found: dict[str, list[Timing]] = {name: [] for name in paths}
    failed: dict[str, BundleError] = {}
    for number in range(rounds):
        # Forwards, then backwards: a machine that gets hotter or quieter favours none.
        for name in list(paths)[:: 1 if number % 2 == 0 else -1]:
            if name not in failed:
                try:
                    found[name].append(measure(paths[name], threads=threads, batch=batch, rounds=1, seconds=seconds))
                except BundleError as error:
                    failed[name] = error
            if progress:
                progress()
    return {name: failed[name] if name in failed else joined(found[name]) for name in paths}


def joined(timings: Sequence[Timing]) -> Timing:
    """Return one timing merged from several of one file."""
    calmest = min(timings, key=lambda timing: timing.p50_ms)
    return replace(
        calmest,
        rounds_ms=tuple(lap for timing in timings for lap in timing.rounds_ms),
        runs=sum(timing.runs for timing in timings),
        load_ms=float(np.median([timing.load_ms for timing in timings])),
        memory_mb=float(np.median([timing.memory_mb for timing in timings])),
        least_ms=min(timing.least_ms for timing in timings),
    )


def time_two(first: Path, second: Path, *, threads: int, turns: int, seconds: float) -> tuple[Timing, Timing]:
    """Measure two files alternately; raise BundleError if one fails."""
    found = time_in_turns({"first": first, "second": second}, threads=threads, rounds=turns, seconds=seconds)
    for timing in found.values():
        if isinstance(timing, BundleError):
            raise timing
    return found["first"], found["second"]  # type: ignore[return-value]
