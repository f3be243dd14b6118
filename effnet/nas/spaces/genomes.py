"""Operations on genomes that every algorithm shares: draw, mutate, cross, encode; and what a history has tried."""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.nas.history import Trained
from effnet.nas.spaces.space import Decision, Genome, Space

# A coefficient that a group shares may be larger than the deviation of one decision's from it. Without such columns the
# surrogate is worse by 0.06 to 0.18 points on NAS-Bench-Macro at 20 trainings; factors of 1 and 2 are alike.
_SHARED = 2.0
# Draws of one proposal before every genome of the space is listed instead; a space of more than `_LISTED` genomes
# counts as exhausted then.
_DRAWS, _LISTED = 400, 20_000


def sample(decisions: Sequence[Decision], *, rng: np.random.Generator) -> Genome:
    """Return one choice of each decision, drawn uniformly; `Space.network` says whether its network exists."""
    return as_genome(sample_many(decisions, number=1, rng=rng)[0])


def sample_many(decisions: Sequence[Decision], *, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return genomes drawn uniformly, as the rows of an array of integers."""
    counts = [len(decision.choices) for decision in decisions]
    return rng.integers(counts, size=(number, len(counts)))


def mutate(genome: Genome, *, decisions: Sequence[Decision], rng: np.random.Generator) -> Genome:
    """Return the genome with another choice of one decision."""
    return as_genome(mutate_many(np.array([genome]), decisions=decisions, rng=rng)[0])


def mutate_many(genomes: np.ndarray, *, decisions: Sequence[Decision], rng: np.random.Generator) -> np.ndarray:
    """Return every row of genomes with another choice of one decision; a space without a choice has no other."""
    counts = np.array([len(decision.choices) for decision in decisions])
    if not (counts > 1).any():
        return genomes.copy()
    places = rng.choice(np.flatnonzero(counts > 1), size=len(genomes))
    rows = np.arange(len(genomes))
    mutated = genomes.copy()
    mutated[rows, places] = (genomes[rows, places] + rng.integers(1, counts[places])) % counts[places]
    return mutated


def as_genome(row: np.ndarray) -> Genome:
    """Return a row of integers as a genome."""
    return tuple(row.tolist())


def crossover(first: Genome, second: Genome, *, rng: np.random.Generator) -> Genome:
    """Return a genome that takes each choice from one of two parents, drawn evenly."""
    return as_genome(crossover_many(np.array([first]), np.array([second]), rng=rng)[0])


def crossover_many(first: np.ndarray, second: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return the crossover of every row of genomes with the same row of others."""
    return np.where(rng.random(first.shape) < 0.5, first, second)


def encode(genomes: Sequence[Genome] | np.ndarray, *, decisions: Sequence[Decision]) -> np.ndarray:
    """Return one row of numbers for each genome.

    A decision of two choices, and an ordered one, is one number from -1 to 1; any other is one-hot. The sums of each
    group follow, so that a linear function can share a coefficient among its decisions.
    """
    chosen = np.asarray(genomes, dtype=np.int64).reshape(len(genomes), len(decisions))
    columns: list[np.ndarray] = []
    groups: dict[tuple[str, int], np.ndarray] = {}
    for index, decision in enumerate(decisions):
        count = len(decision.choices)
        if count == 1:
            continue
        if count == 2 or decision.ordered:
            column = 2.0 * chosen[:, index, None] / (count - 1) - 1.0
        else:
            column = (chosen[:, index, None] == np.arange(count)).astype(float)
        columns.append(column)
        if decision.group:
            key = (decision.group, column.shape[1])
            groups[key] = groups.get(key, 0.0) + _SHARED * column
    columns += groups.values()
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(genomes), 0))


def in_order(history: Sequence[Trained]) -> list[Trained]:
    """Return the trainings to learn from in the order of their proposals, whatever the order in which they ended.

    One without a finite score, such as one that diverged, is left out.
    """
    finite = (trained for trained in history if math.isfinite(trained.score))
    return sorted(finite, key=lambda trained: (trained.generation, trained.slot, trained.share, trained.seed))


def next_generation(history: Sequence[Trained]) -> int:
    """Return the number of the generation that follows a history."""
    return 1 + max((trained.generation for trained in history), default=-1)


def generator(seed: int, generation: int, slot: int) -> np.random.Generator:
    """Return the random generator of one slot of one generation: the same on every machine and after every restart."""
    return np.random.default_rng([seed, generation, slot])


class Batch:
    """The genomes of one generation, while they are chosen: each has a network that was not trained or chosen before.

    Two genomes may have the same network, such as two attentions of a stage without blocks.
    """

    def __init__(self, history: Sequence[Trained], space: Space) -> None:
        self._space = space
        self.chosen: list[Genome] = []
        self._genomes = {trained.genome for trained in history}
        self._networks: set[ArchSpec | None] = {None}
        self._networks.update(space.network(genome) for genome in self._genomes)

    def takes(self, genome: Genome) -> bool:
        """Choose a genome, unless it has no network or this network is known; return whether it was chosen."""
        if genome in self._genomes:
            return False
        self._genomes.add(genome)
        network = self._space.network(genome)
        if network in self._networks:
            return False
        self._networks.add(network)
        self.chosen.append(genome)
        return True

    def takes_random(self, rng: np.random.Generator) -> bool:
        """Choose a random genome; return whether there was one: if draws keep failing, a small space is listed."""
        decisions = self._space.decisions
        if any(self.takes(sample(decisions, rng=rng)) for _ in range(_DRAWS)):
            return True
        rest = list(_left(decisions, self._genomes))
        return any(self.takes(rest[index]) for index in rng.permutation(len(rest)))


def _left(decisions: Sequence[Decision], known: Collection[Genome]) -> Iterator[Genome]:
    """Yield the genomes of a small space that are not known; none of a large one."""
    counts = [len(decision.choices) for decision in decisions]
    if math.prod(counts) <= _LISTED:
        yield from (genome for genome in itertools.product(*map(range, counts)) if genome not in known)
