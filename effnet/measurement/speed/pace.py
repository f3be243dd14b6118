"""Background load of the machine: the current speed of its cores, and the processor time that other processes take."""

import hashlib
import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from effnet.system.machine import usable_cores

# A measurement was disturbed by background load if the pace was this many times slower than on a quiet machine.
DISTURBED = 1.15
# The machine is busy if others take more than this share of the processor time: timers and services take less.
BUSY = 0.10
_RUNS, _LOOPS = 7, 5000
# 40 microseconds per piece. Spreading threads over the cores takes some milliseconds, and so does the end of the
# runtime threads' spinning after a run.
_PIECE_ROUNDS, _WARM_UP_PIECES, _PIECES, _MOST_PIECES = 200, 100, 100, 20_000
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Wall time and processor time of all threads of this process in seconds, each from an arbitrary start."""

    wall: Callable[[], float] = time.perf_counter
    worked: Callable[[], float] = time.process_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The time of a fixed piece of work in ms, and the share of the processor time that other processes took meanwhile.

    `ms` reveals a slow clock, or another process on the same core (hyper-threads); `waited`, from 0 to 1, reveals that
    threads had to wait for a core.
    """

    ms: float
    waited: float


def pace_of(threads: int = 1, *, clock: Clock | None = None) -> Pace:
    """Return the pace of the cores that `threads` threads can use, within 2 to 10 ms on a quiet machine.

    It needs no memory. One thread computes in Python: if another process computes on the same core, or the clock slows
    down, that takes longer, by about the same factor as networks (measured on a shared machine: 1.4 for their 1.45).
    Several threads hash, because Python itself computes in only one thread at a time.
    """
    clock = clock or Clock()
    threads = min(threads or usable_cores(), usable_cores())
    return _pace_of_one(clock) if threads == 1 else _pace_of_many(threads, clock)


def _pace_of_one(clock: Clock) -> Pace:
    laps, worked = [], clock.worked()
    for _ in range(_RUNS):
        start = clock.wall()
        total = 0
        for number in range(_LOOPS):
            total += number * number
        laps.append(clock.wall() - start)
    return Pace(ms=1e3 * statistics.median(laps), waited=waited_share(sum(laps), clock.worked() - worked))


def _pace_of_many(threads: int, clock: Clock) -> Pace:
    """Hash in all threads; compare the processor time of the process with the wall time of this thread's pieces."""
    done = threading.Event()

    def accompany() -> None:
        for _ in range(_MOST_PIECES):
            if done.is_set():
                return
            _hash()

    others = [threading.Thread(target=accompany, daemon=True) for _ in range(threads - 1)]
    try:
        for thread in others:
            thread.start()
        for _ in range(_WARM_UP_PIECES):
            _hash()
        laps, worked = [], clock.worked()
        for _ in range(_PIECES):
            start = clock.wall()
            _hash()
            laps.append(clock.wall() - start)
        worked = clock.worked() - worked
    finally:
        done.set()
        for thread in others:
            thread.join()
    return Pace(ms=1e3 * statistics.median(laps), waited=waited_share(threads * sum(laps), worked))


def _hash() -> None:
    """Compute for a moment with the GIL released."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", _PIECE_ROUNDS)


def waited_share(wall: float, worked: float) -> float:
    """Return the share of `wall` core-seconds in which a process had no core; `worked` is its processor time.

    0 if the system does not report processor time.
    """
    return min(1.0, max(0.0, 1 - worked / wall)) if worked > 0 and wall > 0 else 0.0


def pace_ms(threads: int = 1) -> float:
    """Return the `ms` of `pace_of`."""
    return pace_of(threads).ms


def calm_pace_ms(
    threads: int = 1,
    *,
    seconds: float = 1.0,
    measure: Callable[[int], float] = pace_ms,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
) -> float:
    """Return the fastest pace within `seconds`, which shows a quiet machine; ends even if the clock stands still."""
    found, end = measure(threads), clock() + seconds
    for _ in range(math.ceil(seconds / _PAUSE_SECONDS)):
        if clock() >= end:
            break
        found = min(found, measure(threads))
        pause(_PAUSE_SECONDS)
    return found
