"""Interleaved timing of many networks in one process: short visits in random order, until each had a quiet one.

The time of a network is its fastest run: other processes only add time, and on a busy machine hardly any whole visit
is quiet. (On a machine with five times the load of its cores the fastest runs of two halves of the visits differed by
3 %, their quietest medians by 9 %.)
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.measurement.speed.rounds import time_round
from effnet.runtimes.base import Engine
from effnet.runtimes.registry import open_engine
from effnet.runtimes.untrained import write_graph
from effnet.system.available_memory import available_bytes

VISIT_SECONDS = 0.025
# A network is settled if the fastest runs of this number of visits agree this well, after this many visits in all.
_AGREEING, _AGREEMENT, LEAST_VISITS, MOST_VISITS = 3, 0.015, 5, 30
# Open networks take at most this share of the free memory; bytes per weight and per network, estimated generously.
_MEMORY_SHARE, _BYTES_A_WEIGHT, _BYTES_A_NETWORK = 0.3, 14, 12e6
# Opening may take this share of the time; networks not open by then are left out.
_OPENING_SHARE = 0.6
_BETWEEN_REFERENCES = 16

# Median and fastest run of each visit in ms, by the index of the network.
Visits = dict[int, list[tuple[float, float]]]


class Opened:
    """A network loaded in its runtime, with an input image."""

    def __init__(self, spec: ArchSpec, *, runtime: str, threads: int, precision: Precision) -> None:
        self._threads = threads
        with TemporaryDirectory(prefix="effnet-profile-") as scratch:
            path = write_graph(spec, Path(scratch), runtime=runtime, precision=precision)
            self._engine: Engine = open_engine(path, threads=threads, runtime=runtime)
        shape = (1, *self._engine.size, self._engine.channels)
        self._image = np.resize(np.arange(251, dtype=np.uint8), shape)

    def visit(self) -> tuple[float, float]:
        """Return the median and the fastest of some runs, in ms; a warm-up run before them is not counted."""
        self._engine.run(self._image)
        found = time_round(
            lambda: self._engine.run(self._image), seconds=VISIT_SECONDS, threads=self._threads
        )  # fmt: skip
        return found.median_ms, found.least_ms


def reference_spec() -> ArchSpec:
    """Return the network that is timed repeatedly, to detect clock changes of the machine: about 12 million MACs."""
    return scale(get_spec("b0", num_classes=10), phi=-4, resolution=96)


def settled(visits: Sequence[tuple[float, float]]) -> bool:
    """Return whether the fastest runs of the quietest visits agree, so that more visits would change nothing."""
    calmest = sorted(least for _, least in visits)[:_AGREEING]
    if len(visits) < LEAST_VISITS:
        return False
    return len(visits) >= MOST_VISITS or calmest[-1] <= (1 + _AGREEMENT) * calmest[0]


def chunks_of(specs: Sequence[ArchSpec], *, memory_bytes: float | None = None) -> list[list[int]]:
    """Return the indices of `specs` in groups that fit into memory together; by default into the free memory."""
    allowed = _MEMORY_SHARE * (memory_bytes or available_bytes() or 2e9)
    found: list[list[int]] = []
    left = 0.0
    for number, spec in enumerate(specs):
        needed = _BYTES_A_NETWORK + _BYTES_A_WEIGHT * cost(spec).folded_params
        if not found or needed > left:
            found.append([])
            left = allowed
        found[-1].append(number)
        left -= needed
    return found


def visit_all(
    specs: Sequence[ArchSpec],
    visits: Visits,
    references: list[float],
    *,
    reference: Opened,
    open_network: Callable[[ArchSpec], Opened],
    seconds: float,
    least: int,
    after_pass: Callable[[], None],
) -> None:
    """Add visits of `specs` to `visits`, by their index, and of the reference network to `references`, in ms.

    It ends when all are settled or after `seconds`. Networks that cannot be opened in time, except the first `least`,
    are left out; each group has at least one pass. `after_pass` is called whenever there are new visits to save.
    """
    begun = time.perf_counter()
    groups = chunks_of(specs)
    for place, group in enumerate(groups):
        start = time.perf_counter()
        weight = len(group) / sum(map(len, groups[place:]))
        end = start + max(0.0, begun + seconds - start) * weight
        opened = {}
        for number in group:
            late = time.perf_counter() > start + _OPENING_SHARE * (end - start)
            if settled(visits.get(number, [])) or (late and number in visits):
                continue
            if late and number >= least:
                break
            opened[number] = open_network(specs[number])
        _visit_group(opened, visits, references, reference, end=end, after_pass=after_pass)


def _visit_group(
    opened: dict[int, Opened],
    visits: Visits,
    references: list[float],
    reference: Opened,
    *,
    end: float,
    after_pass: Callable[[], None],
) -> None:
    waiting, rng = list(opened), random.Random(0)
    while waiting:
        rng.shuffle(waiting)
        for count, number in enumerate(waiting):
            if count % _BETWEEN_REFERENCES == 0:
                references.append(reference.visit()[0])
            # Every network gets one visit, however late it is.
            if time.perf_counter() < end or not visits.get(number):
                visits.setdefault(number, []).append(opened[number].visit())
        after_pass()
        if time.perf_counter() >= end:
            return
        waiting = [number for number in waiting if not settled(visits[number])]
