"""A tiny space of networks for tests of searches, and an algorithm without randomness."""

import itertools

import numpy as np

from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale
from effnet.nas.spaces.space import Decision


class TinySpace:
    """A few decisions; the network's width grows with the sum of the choices."""

    def __init__(self, *, choices: int, decisions: int) -> None:
        self.decisions = tuple(
            Decision(name=f"decision {number}", choices=tuple(range(choices)), ordered=True)
            for number in range(decisions)
        )

    def network(self, genome):
        """Return a network."""
        return scale(get_spec("b0", num_classes=10), phi=-20 + sum(genome), resolution=16)

    def features(self, genome):
        """Return the sum of the choices."""
        return np.array([float(sum(genome))])


def in_order(history, space, *, number, seed):
    """Propose the first choices that were not trained yet."""
    known = {trained.genome for trained in history}
    every = itertools.product(*(range(len(decision.choices)) for decision in space.decisions))
    return list(itertools.islice((genome for genome in every if genome not in known), number))
