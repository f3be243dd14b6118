"""How jobs are carried out in tests: measured briefly or not at all, of a dozen tiny networks, without plots."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devices import timing

from effnet.jobs.procedure import Procedure
from effnet.measurement.speed.stopwatch import FINISHED, PLANNING, Stopwatch
from effnet.measurement.speed.timing import Timing, time_model
from effnet.planner.space import SearchSpace


def measure_briefly(path: Path, **options: Any) -> Timing:
    """Measure a file in as few runs as possible."""
    return time_model(path, **options | {"seconds": 0.01})


def no_pause(seconds: float) -> None:
    """Wait no time."""


# Every file is measured once, on a busy machine too; the smallest networks train within a second an epoch of digits.
BRIEF = Stopwatch(
    once=measure_briefly,
    planning=dataclasses.replace(PLANNING, pauses=(), waits=False),
    finished=dataclasses.replace(FINISHED, pauses=()),
)
TINY = SearchSpace(families=("b0",), variants=(), phis=(-20,))
TINIEST = dataclasses.replace(TINY, resolutions=(16,))
QUICK = Procedure(stopwatch=BRIEF, space=TINY, draws=False)


def made_up(
    measure: Callable[[Path], Timing] = lambda path: timing(1.0),
    *,
    candidate: Callable[..., Timing] | None = None,
    repeats: int = 0,
    clock: Callable[[], float] | None = None,
    **changes: Any,
) -> Procedure:
    """Return a procedure on a made-up device, which measures files, and candidates of a plan, in no time.

    A finished file that misses its budget is measured again `repeats` times.
    """
    stopwatch = dataclasses.replace(
        BRIEF,
        once=lambda path, **_: measure(Path(path)),
        quiet_pace=lambda threads: math.inf,
        pause=no_pause,
        finished=dataclasses.replace(FINISHED, pauses=(0.0,) * repeats),
    )
    if clock is not None:
        stopwatch = dataclasses.replace(stopwatch, clock=clock)
    if candidate is not None:
        changes["oracle"] = lambda found, *_, **__: candidate(found)
    return Procedure(**{"stopwatch": stopwatch, "space": TINY, "draws": False} | changes)


UNTIMED = made_up()


def fit(data: Any, **options: Any) -> Any:
    """Fit as `effnet.fit` does, by default with UNTIMED."""
    import effnet

    return effnet.fit(data, **{"procedure": UNTIMED} | options)


def train(data: Any, **options: Any) -> Any:
    """Train as `effnet.train` does, by default with UNTIMED."""
    import effnet

    return effnet.train(data, **{"procedure": UNTIMED} | options)
