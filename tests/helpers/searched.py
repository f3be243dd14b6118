"""A space without cost, and searches in it, for the tests of effnet.nas."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effnet.arch.spec import ArchSpec, BlockSpec, StemSpec
from effnet.nas.history import Propose, Trained
from effnet.nas.spaces.space import Decision, Genome, Space


@dataclass(frozen=True)
class ToySpace:
    """A space of a few decisions; networks differ in resolution and classes, and those of `absent` do not exist.

    If they are `alike`, only the first decision tells them apart.
    """

    decisions: tuple[Decision, ...]
    baselines: tuple[Genome, ...] = ()
    absent: Callable[[Genome], bool] = lambda genome: False
    alike: bool = False

    def network(self, genome: Genome) -> ArchSpec | None:
        if self.absent(genome):
            return None
        number = 0
        for decision, index in zip(self.decisions[: 1 if self.alike else None], genome, strict=False):
            assert 0 <= index < len(decision.choices)
            number = number * len(decision.choices) + index
        block = BlockSpec(kind="conv", in_channels=1, mid_channels=1, out_channels=1)
        high, low = divmod(number, 10_000)
        stem = StemSpec(channels=1)
        return ArchSpec(num_classes=high, resolution=low + 1, stem=stem, stages=((block,),), head_channels=0)

    def features(self, genome: Genome) -> np.ndarray:
        return np.zeros(0)


def toy(*counts: int, **options) -> ToySpace:
    """Return a space of unordered decisions with these numbers of choices."""
    decisions = (Decision(name=f"d{place}", choices=tuple(range(count))) for place, count in enumerate(counts))
    return ToySpace(tuple(decisions), **options)


def searched(
    propose: Propose,
    space: Space,
    score: Callable[[Genome], float],
    *,
    generations: int,
    number: int = 4,
    seed: int = 0,
) -> list[Trained]:
    """Return the history of a search in generations of `number`."""
    history: list[Trained] = []
    for generation in range(generations):
        found = propose(tuple(history), space, number=number, seed=seed)
        history += [trained(genome, score(genome), generation, slot) for slot, genome in enumerate(found)]
    return history


def trained(genome: Genome, score: float, generation: int = 0, slot: int = 0, **others) -> Trained:
    return Trained(genome=genome, generation=generation, slot=slot, seed=0, score=score, **others)
