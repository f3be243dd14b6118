"""A hierarchy of classes in their names: `animal/dog` is a class below `animal`, which sums the classes below it.

Only the labels of manifests and of programs make a hierarchy: the name of a folder has no slash.
"""

from collections.abc import Sequence
from functools import lru_cache

from effnet.errors import DataError
from effnet.system.text import brief

SEPARATOR = "/"


def parents(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the classes below each parent, sorted; parents are in the order of their first class.

    `names` are class names in their order. `animal/dog/poodle` is below `animal` and `animal/dog`. A class that has
    classes below it is one of them itself: images labelled `animal` show an animal of no other class. A name with an
    empty part, such as `a//b`, has no parents.
    """
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        for parent in _above(name):
            found.setdefault(parent, []).append(number)
    own = {name: number for number, name in enumerate(names)}
    return {
        parent: tuple(sorted({*numbers, own[parent]} if parent in own else numbers))
        for parent, numbers in found.items()
    }


def levels(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the name of each class at each level above the leaves, the topmost first; none without a hierarchy.

    At level 1 "animal/cat/siamese" is "animal", at level 2 "animal/cat"; a class that ends above a level is itself.
    """
    return _levels(tuple(names))


@lru_cache(maxsize=64)
def _levels(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    paths = [(*_above(name), name) for name in names]
    deepest = max(map(len, paths), default=1)
    return tuple(tuple(path[min(depth, len(path) - 1)] for path in paths) for depth in range(deepest - 1))


def check_hierarchy(name: str) -> str:
    """Return the name of a class; raise DataError if a part of its path is empty."""
    if SEPARATOR in name and not _above(name):
        raise DataError(
            f"a class with {SEPARATOR} in its name is a path such as animal{SEPARATOR}dog, each part of which must be "
            f"text; got {brief(name)}: rename it"
        )
    return name


def _above(name: str) -> list[str]:
    """Return the parents of a class, the topmost first."""
    parts = name.split(SEPARATOR)
    if not all(part.strip() for part in parts):
        return []
    return [SEPARATOR.join(parts[:depth]) for depth in range(1, len(parts))]
