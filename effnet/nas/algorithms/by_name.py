"""The algorithms of a search by their names."""

from effnet.errors import InputError, nearest, shown
from effnet.nas.algorithms.evolution import propose_evolution
from effnet.nas.algorithms.grid import propose_grid
from effnet.nas.algorithms.random_search import propose_random
from effnet.nas.algorithms.reinforce import propose_reinforce
from effnet.nas.algorithms.surrogate import propose_surrogate
from effnet.nas.history import Propose

ALGORITHMS: dict[str, Propose] = {
    "surrogate": propose_surrogate,
    "evolution": propose_evolution,
    "reinforce": propose_reinforce,
    "grid": propose_grid,
    "random": propose_random,
}
DEFAULT = "surrogate"


def find_algorithm(name: str) -> Propose:
    """Return the algorithm of this name; raise InputError if there is none."""
    if name not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise InputError(f"algorithm must be one of {known}; got {shown(name)}{nearest(name, ALGORITHMS)}")
    return ALGORITHMS[name]
