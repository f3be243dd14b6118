"""Random search: the baseline that every other algorithm must beat at equal cost."""

from collections.abc import Sequence

from effnet.nas.history import Trained
from effnet.nas.spaces.genomes import Batch, generator, next_generation
from effnet.nas.spaces.space import Genome, Space


def propose_random(history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
    """Return genomes drawn uniformly; every network is scaled to the budget, so cost gives none of them an advantage.

    Source: Li and Talwalkar 2019, arXiv 1902.07638.
    """
    batch, generation = Batch(history, space), next_generation(history)
    for slot in range(number):
        if not batch.takes_random(generator(seed, generation, slot)):
            break
    return batch.chosen
