"""The images of one process: its share of every batch, and its part of the held-out images."""

import dataclasses
from collections.abc import Callable, Generator, Iterable

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.system.machine import usable_cores
from effnet.training.distributed.ranks import Ranks, Share
from effnet.training.input.batches import CACHE_BYTES, Load, cached_loader, held_out, num_batches, train_batches
from effnet.training.memory.predict import evaluation_batch
from effnet.training.position import Position
from effnet.training.recipe.progressive import resolution_at
from effnet.training.recipe.schema import Recipe

Images = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


class Portions:
    """The images of one run for one process; `num_batches` is the number of batches of an epoch."""

    def __init__(self, dataset: Dataset, recipe: Recipe, preprocess: Preprocess, ranks: Ranks) -> None:
        self.dataset, self.recipe, self.preprocess, self.ranks = dataset, recipe, preprocess, ranks
        self.load, self.load_preprocess = self._loader(preprocess), preprocess
        self.num_batches = num_batches(len(dataset.train), recipe.train.batch_size)

    def batches(self, recipe: Recipe, position: Position) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Yield this process's share of the remaining batches of the epoch, at the resolution of the epoch.

        `recipe` is that of the current epoch.
        """
        side = resolution_at(self.recipe, position.epoch, final=self.preprocess.resolution)
        preprocess = dataclasses.replace(self.preprocess, resolution=side)
        if preprocess != self.load_preprocess:  # images are cached no larger than this resolution needs
            self.load, self.load_preprocess = self._loader(preprocess), preprocess
        return train_batches(
            self.load,
            self.dataset.train.labels,
            recipe,
            preprocess,
            epoch=position.epoch,
            start=position.batch,
            own=self._own,
            blocks=self.dataset.train.blocks,
            workers=max(1, usable_cores() // (2 * self.ranks.local_size)),
        )

    def share(self, count: int) -> Share:
        """Return this process's share of a batch of `count` images."""
        return self.ranks.share(count, least=1 if self.recipe.train.frozen_norms else 2)

    def validation(self) -> Images:
        """Return a function that gives this process's part of the validation images, or else of the training images."""
        return self._held_out(self.dataset.val if len(self.dataset.val) else self.dataset.train)

    def precise(self) -> Images | None:
        """Return a function that gives this process's part of the images for precise BatchNorm statistics, if any."""
        count, split = self.recipe.train.precise_norms, self.dataset.train
        if not count:
            return None
        chosen = np.random.default_rng(self.recipe.train.seed).permutation(len(split))[:count]
        return self._held_out(Split(sources=[split.sources[i] for i in chosen], labels=split.labels[chosen]))

    def _own(self, count: int) -> slice:
        share = self.share(count)
        return slice(share.first, share.last)

    def _loader(self, preprocess: Preprocess) -> Load:
        return cached_loader(self.dataset.train, preprocess, limit=CACHE_BYTES // self.ranks.local_size)

    def _held_out(self, split: Split) -> Images:
        first, last = self.ranks.part(len(split))
        part = Split(sources=split.sources[first:last], labels=split.labels[first:last])
        limit = CACHE_BYTES // 2 // self.ranks.local_size
        return held_out(part, self.preprocess, batch_size=evaluation_batch(self.recipe), limit=limit)
