"""How fast the machine is just now: what a fixed piece of work takes, by which a disturbed measurement is told."""

import time

import numpy as np

# A measurement was disturbed where the pace was so many times slower than it can be.
DISTURBED = 1.15
_RUNS, _LOOPS = 7, 5000


def pace_ms() -> float:
    """Returns the median milliseconds of a few runs of the same small work, within 2 to 10 ms in all.

    It needs one core and no memory. Where a neighbour computes on the same core (hyper-threads), or the clock slows,
    it takes longer, about as much as networks do (measured on a shared machine: 1.4 times where they took 1.45).
    """
    laps = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        total = 0
        for number in range(_LOOPS):
            total += number * number
        laps.append(time.perf_counter() - start)
    return 1e3 * float(np.median(laps))


def calm_pace_ms(*, seconds: float = 1.0) -> float:
    """Returns the pace of the calmest moment within `seconds`."""
    found, end = pace_ms(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        found = min(found, pace_ms())
        time.sleep(0.01)
    return found
