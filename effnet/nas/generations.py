"""The search itself: generations of networks, each proposed from all completed ones before it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.nas.history import Propose, Trained
from effnet.nas.spaces.space import Genome, Space
from effnet.nas.study import Study, Unit, seed_of
from effnet.system.records import from_data, to_data

# The share of the completed trainings that one must equal at the first rung and at later ones, and the fewest of them.
_KEPT, _LEAST_KNOWN = (2 / 3, 1 / 3), 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Generations:
    """The extent of a search: `total` trainings, in generations of `size`; all randomness comes from the `key`."""

    key: str
    total: int
    size: int

    @property
    def number(self) -> int:
        """The number of generations, of which the last may be smaller."""
        return -(-self.total // self.size)


Train = Callable[[Genome, int, Sequence[Trained]], Mapping[str, Any]]
"""Trains the network of some choices with a seed, beside the completed history; returns fields of Trained."""


def run_generations(
    study: Study,
    space: Space,
    propose: Propose,
    extent: Generations,
    *,
    train: Train,
    listener: Callable[[Trained], None] = lambda trained: None,
    late: Callable[[], bool] = lambda: False,
) -> list[Trained]:
    """Return the history of a whole search, of which this worker does its part; less of it once it is `late`.

    What a generation proposes, and when its trainings are stopped, depends on completed generations alone: any number
    of workers, interrupted at any moment, give the same history. It ends early if the space has no more networks.
    """
    history: list[Trained] = []
    for generation in range(extent.number):
        before = tuple(history)
        wanted = min(extent.size, extent.total - generation * extent.size)
        genomes = propose(before, space, number=wanted, seed=seed_of(extent.key, generation))
        units = {Unit(generation, slot): genome for slot, genome in enumerate(genomes)}

        def do(unit: Unit, units: Mapping[Unit, Genome] = units, before: Sequence[Trained] = before) -> dict[str, Any]:
            seed = seed_of(extent.key, *unit)
            found = train(units[unit], seed, before)
            place = {"genome": units[unit], "generation": unit.generation, "slot": unit.slot, "seed": seed}
            whole: dict[str, Any] = to_data(Trained(**{**found, **place}))
            return whole

        results = study.in_turn(list(units), do, score="score", late=late)
        for result in results.values():
            history.append(trained_from(result))
            listener(history[-1])
        if len(results) < len(units) or len(genomes) < wanted:
            break
    return history


def trained_from(data: Mapping[str, Any]) -> Trained:
    """Return the training that a study recorded; raise ValueError for anything else."""
    found: Trained = from_data(Trained, data, where="a training")
    return dataclasses.replace(found, genome=tuple(found.genome))


def is_behind(value: float, history: Sequence[Trained], *, rung: int) -> bool:
    """Return whether a training may be stopped at a rung: it is below the best two thirds at the first, then a third.

    Asynchronous successive halving (Li et al. 2018, algorithm 2), against completed generations alone. The first rung
    keeps more: after it deep networks are often still at chance, and it said little of the end (rank correlations of
    0.1 to 0.96 in seven searches of benchmarks/search_gain.py, 0.76 to 0.94 at the second; by hand, no record).
    """
    keep = _KEPT[min(rung, len(_KEPT) - 1)]
    known = sorted((each.rungs[rung] for each in history if len(each.rungs) > rung), reverse=True)
    return len(known) >= _LEAST_KNOWN and value < known[int(len(known) * keep) - 1]
