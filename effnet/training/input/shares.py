"""The images of one process: its share of every batch, and its part of the held-out images."""

import dataclasses
from collections.abc import Generator

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.system.machine import usable_cores
from effnet.training.distributed.ranks import Ranks, Share
from effnet.training.input.batches import CACHE_BYTES, cached_loader, held_out, num_batches, train_batches
from effnet.training.input.own import HeldOut, OwnInput
from effnet.training.memory.predict import evaluation_batch
from effnet.training.recipe.progressive import resolution_at
from effnet.training.recipe.schema import Recipe
from effnet.training.state.position import Position


class Portions:
    """The images of one run for one process; `num_batches` is the number of batches of an epoch.

    `own` is the module `inputs` of a task whose targets move with the pixels.
    """

    def __init__(
        self, dataset: Dataset, recipe: Recipe, preprocess: Preprocess, ranks: Ranks, own: OwnInput | None = None
    ) -> None:
        self.dataset, self.recipe, self.preprocess, self.ranks, self.own = dataset, recipe, preprocess, ranks, own
        self._open(preprocess)
        self.num_batches = num_batches(len(dataset.train), recipe.train.batch_size)

    def batches(self, recipe: Recipe, position: Position) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Yield this process's share of the remaining batches of the epoch, at the resolution of the epoch.

        `recipe` is that of the current epoch.
        """
        side = resolution_at(self.recipe, position.epoch, final=self.preprocess.resolution)
        preprocess = dataclasses.replace(self.preprocess, resolution=side)
        if preprocess != self.load_preprocess:  # images are cached no larger than this resolution needs
            self._open(preprocess)
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
            views=self.views,
        )

    def share(self, count: int) -> Share:
        """Return this process's share of a batch of `count` images."""
        return self.ranks.share(count, least=1 if self.recipe.train.frozen_norms else 2)

    def validation(self) -> HeldOut:
        """Return a function that gives this process's part of the validation images, or else of the training images."""
        return self._held_out(self.dataset.val if len(self.dataset.val) else self.dataset.train)

    def precise(self) -> HeldOut | None:
        """Return a function that gives this process's part of the images for precise BatchNorm statistics, if any."""
        count, split = self.recipe.train.precise_norms, self.dataset.train
        if not count:
            return None
        chosen = np.random.default_rng(self.recipe.train.seed).permutation(len(split))[:count]
        return self._held_out(Split(sources=[split.sources[i] for i in chosen], labels=split.labels[chosen]))

    def _own(self, count: int) -> slice:
        share = self.share(count)
        return slice(share.first, share.last)

    def _open(self, preprocess: Preprocess) -> None:
        """Make the loader of the training images, or the task's own views of them, for this preprocessing."""
        split, limit = self.dataset.train, CACHE_BYTES // self.ranks.local_size
        self.load, self.load_preprocess = cached_loader(split, preprocess, limit=limit), preprocess
        self.views = None if self.own is None else self.own.views(split, self.recipe, preprocess, limit=limit)

    def _held_out(self, split: Split) -> HeldOut:
        first, last = self.ranks.part(len(split))
        part = Split(sources=split.sources[first:last], labels=split.labels[first:last])
        limit, size = CACHE_BYTES // 2 // self.ranks.local_size, evaluation_batch(self.recipe)
        if self.own is not None:
            return self.own.held_out(part, self.recipe, self.preprocess, batch_size=size, limit=limit)
        return held_out(part, self.preprocess, batch_size=size, limit=limit)
