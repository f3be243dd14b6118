"""Batches of tasks whose targets move with the pixels, such as boxes and masks: what they make themselves."""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess
from effnet.training.recipe.schema import Recipe

T = TypeVar("T")
HeldOut = Callable[[], Iterable[tuple[np.ndarray, Any]]]
"""A function that gives the held-out images, uint8 [batch, height, width, C], with what `validate` compares them to."""


class Views(Protocol):
    """The random views of the images of one split."""

    def view(self, index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a view of image `index`, uint8 [height, width, C], and its target; they depend on nothing else.

        `recipe` is that of the epoch. Raises ImageError if the image cannot be read.
        """
        ...

    def stack(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        """Return the targets of a batch as one array [batch, ...]."""
        ...


class OwnInput(Protocol):
    """The functions of a module `inputs` of a task's module `learning`; tasks without it have classes or numbers."""

    def views(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, limit: int) -> Views:
        """Return the views of a split; at most `limit` bytes of decoded images are cached."""
        ...

    def held_out(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, batch_size: int, limit: int) -> HeldOut:
        """Return the images of a split as they are evaluated; if they fit into `limit` bytes, they are decoded once."""
        ...


class Lazy(Generic[T]):
    """What is made when it is first needed, by whichever thread; a finished run that is resumed needs none."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, Lock()
        self._found: T | None = None

    def get(self) -> T:
        """Return it."""
        with self._lock:
            if self._found is None:
                self._found = self._make()
            return self._found
