"""A hierarchy of classes: "animal/dog" is a child of "animal", whose probability is the sum of its children's."""

from collections.abc import Sequence
from functools import lru_cache


def parents(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return each parent of the classes `names` and the numbers of its leaves: "animal" has those of "animal/...".

    A class that is itself a parent is one of its own leaves. A name with an empty part, such as "/" or "a//b", has no
    parents.
    """
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        parts = name.split("/")
        for depth in range(1, len(parts) if all(parts) else 1):
            found.setdefault("/".join(parts[:depth]), []).append(number)
    for number, name in enumerate(names):
        if name in found:
            found[name].append(number)
    return {name: tuple(sorted(leaves)) for name, leaves in found.items()}


def levels(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the name of each class at each level above the leaves, the topmost first; none without a hierarchy.

    At level 1 "animal/cat/siamese" is "animal", at level 2 "animal/cat"; a class that ends above a level is itself.
    """
    return _levels(tuple(names))


@lru_cache(maxsize=64)
def _levels(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    split = [name.split("/") if all(name.split("/")) else [name] for name in names]
    deepest = max(map(len, split), default=1)
    return tuple(tuple("/".join(parts[:depth]) for parts in split) for depth in range(1, deepest))
