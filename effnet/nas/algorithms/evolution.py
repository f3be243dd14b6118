"""Regularized evolution, whose children a surrogate chooses among."""

from collections.abc import Sequence

import numpy as np

from effnet.nas.algorithms.surrogate import fit_ridge, takes_drawn
from effnet.nas.history import Trained
from effnet.nas.spaces.genomes import (
    Batch,
    crossover_many,
    generator,
    in_order,
    mutate_many,
    next_generation,
)
from effnet.nas.spaces.space import Genome, Space

# The youngest networks are the population; the best of a random few is a parent.
_POPULATION, _TOURNAMENT = 12, 4
# The children of which the surrogate chooses one to train.
_CHILDREN = 40


def propose_evolution(history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
    """Return random genomes until there is a population, then children of its better ones.

    A child differs in one decision from its parent, or from a crossover of two. Source: regularized evolution, Real et
    al. 2019, arXiv 1802.01548; that a surrogate chooses the child that is trained, White et al. 2019 (BANANAS),
    arXiv 1910.11858.
    """
    history, batch, generation = in_order(history), Batch(history, space), next_generation(history)
    ridge = fit_ridge(history, space) if len(history) >= _POPULATION else None
    for slot in range(number):
        rng = generator(seed, generation, slot)
        if ridge is not None and takes_drawn(batch, _children(history[-_POPULATION:], space, rng=rng), ridge, rng=rng):
            continue
        if not batch.takes_random(rng):
            break
    return batch.chosen


def _children(population: Sequence[Trained], space: Space, *, rng: np.random.Generator) -> np.ndarray:
    """Return children of winners of tournaments, as rows; half of them have two parents."""
    genomes = np.array([trained.genome for trained in population])
    scores = np.array([trained.score for trained in population])

    def parents() -> np.ndarray:
        entered = rng.integers(len(population), size=(_CHILDREN, _TOURNAMENT))
        winners: np.ndarray = genomes[entered[np.arange(_CHILDREN), scores[entered].argmax(axis=1)]]
        return winners

    first, second = parents(), parents()
    crossed = crossover_many(first, second, rng=rng)
    alone = np.arange(_CHILDREN) % 2 == 0
    return mutate_many(np.where(alone[:, None], first, crossed), decisions=space.decisions, rng=rng)
