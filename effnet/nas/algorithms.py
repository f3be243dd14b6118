"""The algorithms of a search by their names."""

from effnet.errors import InputError, nearest, shown
from effnet.nas.history import Propose
from effnet.nas.random_search import propose_random
from effnet.nas.surrogate import propose_surrogate

ALGORITHMS: dict[str, Propose] = {"surrogate": propose_surrogate, "random": propose_random}


def find_algorithm(name: str) -> Propose:
    """Return the algorithm of this name; raise InputError if there is none."""
    if name not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise InputError(f"algorithm must be one of {known}; got {shown(name)}{nearest(name, ALGORITHMS)}")
    return ALGORITHMS[name]
