"""How disturbed the machine is just now: how fast its cores compute, and how much of them other processes take."""

import hashlib
import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from effnet.measure.machine import usable_cores

# A measurement was disturbed if the pace was this many times slower than it can be.
DISTURBED = 1.15
# The machine is busy if others take more than this share of the processor time: timers and services take less.
BUSY = 0.10
_RUNS, _LOOPS = 7, 5000
# 40 microseconds a piece. Threads need some milliseconds to be spread over the cores, and the runtime's own threads to
# stop spinning after a run.
_PIECE_ROUNDS, _WARM_UP_PIECES, _PIECES, _MOST_PIECES = 200, 100, 100, 20_000
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Seconds that pass and seconds that all threads of this process compute, each from any start."""

    wall: Callable[[], float] = time.perf_counter
    worked: Callable[[], float] = time.process_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a fixed piece of work took, in ms, and the share of the processor time that others took meanwhile.

    `ms` tells a slow clock, or a neighbour on the same core (hyper-threads); `waited`, from 0 to 1, tells that threads
    had to wait for a core.
    """

    ms: float
    waited: float


def pace_of(threads: int = 1, *, clock: Clock | None = None) -> Pace:
    """Return the pace of as many cores as `threads` threads can use, within 2 to 10 ms if the machine is calm.

    It needs no memory. One thread computes in Python: where a neighbour computes on the same core, or the clock slows,
    that takes longer, about as much as networks do (measured on a shared machine: 1.4 times where they took 1.45).
    Several threads hash, because Python itself computes in one of them only.
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
    """Have all threads hash, and looks at what the whole process got of the cores while this thread's pieces took."""
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
    """Compute for a moment with Python's lock released."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", _PIECE_ROUNDS)


def waited_share(wall: float, worked: float) -> float:
    """Return the share of `wall` seconds of cores in which a process did not get to compute.

    0 where the system does not tell what a process worked.
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
    """Return the pace of the calmest moment within `seconds`, which also ends if the clock stands still."""
    found, end = measure(threads), clock() + seconds
    for _ in range(math.ceil(seconds / _PAUSE_SECONDS)):
        if clock() >= end:
            break
        found = min(found, measure(threads))
        pause(_PAUSE_SECONDS)
    return found
