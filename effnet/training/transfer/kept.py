"""Fine-tuning of the later stages alone, on feature maps of the earlier ones that are computed once.

The maps after a stage are kept, of some random views of each training image and of the held-out images; they take the
place of images in the training loop, which trains the rest of the network (`tail_of`) on them.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from effnet.arch.layers import output_side
from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.nn.network import Network
from effnet.system.machine import usable_cores
from effnet.training.device import normalized, to_pixels
from effnet.training.input.augment import augment_batch
from effnet.training.input.batches import augmented, cached_loader, eval_batches, this_or_next
from effnet.training.input.own import HeldOut, Lazy
from effnet.training.learning import Learning, learning_of
from effnet.training.recipe.schema import Recipe

# Images whose feature maps are computed at once.
_TOGETHER = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Maps:
    """Feature maps, float16 [rows, height, width, channels], and the index of the image of each row, [rows]."""

    values: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptMaps:
    """The feature maps of the training images, whose row is view times images plus image, and of the held-out ones."""

    train: Maps
    held_out: Maps
    images: int

    @property
    def views(self) -> int:
        """The number of views of each training image."""
        return len(self.train.values) // self.images


def tail_of(network: Network, stages: int) -> Network:
    """Return what follows the first `stages` stages, with the same parameters; it takes their maps as images."""
    tail = copy.copy(network)
    tail._modules = dict(network._modules)
    tail.stem = nn.Sequential()
    tail.stages = nn.ModuleList([*(nn.Sequential() for _ in range(stages)), *network.stages[stages:]])
    return tail


def front_of(network: Network, stages: int) -> nn.Module:
    """Return the stem and the first `stages` stages, from normalised images to feature maps."""
    return nn.Sequential(network.stem, *network.stages[:stages])


def map_bytes(spec: ArchSpec, stages: int) -> int:
    """Return the bytes of the feature map of one view after `stages` stages."""
    stride = spec.stem.stride * (2 if spec.stem.max_pool else 1)
    stride *= math.prod(block.stride for blocks in spec.stages[:stages] for block in blocks)
    height, width = (output_side(side, stride) for side in spec.input_size)
    return 2 * height * width * (spec.stages[stages - 1][-1].out_channels if stages else spec.stem.channels)


def kept_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of fine-tuning on kept feature maps: their views were drawn and augmented before.

    What needs images, a teacher and attacks, is left to the epochs that follow.
    """
    kept, train, loss = recipe.kept, recipe.train, recipe.loss
    augment = dataclasses.replace(
        recipe.augment, policy="none", rotation=0.0, jitter=0.0, erasing=0.0, noise=0.0, blur=0.0, jpeg=0.0,
        adversarial=0.0,
    )  # fmt: skip
    train = dataclasses.replace(
        train, epochs=kept.epochs, lr=kept.lr or train.lr, patience=0, micro_batch=0, precise_norms=0, start_counts=True
    )
    loss = dataclasses.replace(loss, teacher="", teacher_views=0, feature_weight=0.0)
    return dataclasses.replace(recipe, train=train, augment=augment, loss=loss, stages=())


def keep(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    stages: int,
    views: int,
    folder: Path,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> KeptMaps:
    """Return the feature maps after the first `stages` stages, in files of `folder`: those that are whole are kept.

    View v of image i depends on the recipe's seed, v and i alone. An image that cannot be read is replaced by the next.
    """
    front = front_of(network, stages).to(device).eval()
    split, count, seed = dataset.train, len(dataset.train), recipe.train.seed
    load = cached_loader(split, preprocess)

    def view(row: int) -> tuple[np.ndarray, int]:
        number, index = divmod(row, count)

        def make(place: int) -> tuple[np.ndarray, int]:
            rng = np.random.default_rng([seed, number, index])
            return augmented(load(place), recipe, preprocess, rng=rng), place

        return this_or_next(make, count, index)

    def drawn() -> Iterator[tuple[Tensor, Sequence[int]]]:
        for first, images, indices in _viewed(view, views * count):
            pixels = to_pixels(images, device)
            step = first // _TOGETHER
            yield augment_batch(pixels, recipe.augment, mean=preprocess.mean, seed=seed, step=step), indices
            progress(first + len(images), views * count)

    def whole() -> Iterator[tuple[Tensor, Sequence[int]]]:
        val = dataset.val if len(dataset.val) else split
        for images, indices in eval_batches(val, preprocess, batch_size=_TOGETHER):
            yield to_pixels(images, device), indices.tolist()

    def maps(pixels: Tensor) -> np.ndarray:
        with torch.no_grad():
            found = front(normalized(pixels, preprocess))
        return found.permute(0, 2, 3, 1).half().cpu().numpy()

    folder.mkdir(parents=True, exist_ok=True)
    return KeptMaps(
        train=_stored(folder / "views", ((maps(p), i) for p, i in drawn())),
        held_out=_stored(folder / "held_out", ((maps(p), i) for p, i in whole())),
        images=count,
    )


def _viewed(
    view: Callable[[int], tuple[np.ndarray, int]], rows: int
) -> Iterator[tuple[int, np.ndarray, Sequence[int]]]:
    """Yield the first row, the views and their images of batches, decoded in threads one batch ahead."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        chunks = [range(first, min(first + _TOGETHER, rows)) for first in range(0, rows, _TOGETHER)]
        waiting = pool.map(view, chunks[0])
        for number, chunk in enumerate(chunks):
            images, indices = zip(*waiting, strict=True)
            if number + 1 < len(chunks):
                waiting = pool.map(view, chunks[number + 1])
            yield chunk[0], np.stack(images), indices


def _stored(path: Path, batches: Iterable[tuple[np.ndarray, Sequence[int]]]) -> Maps:
    """Return the maps of batches, from PATH.maps and PATH.npz if they are there.

    The first is written as it comes, so that a full disk is an error (a mapped file would end the process), and gets
    its name when it is whole.
    """
    whole, about = path.with_suffix(".maps"), path.with_suffix(".npz")
    if not whole.is_file():
        part, indices, shape = path.with_suffix(".part"), list[int](), ()
        with open(part, "wb") as file:
            for maps, own in batches:
                file.write(np.ascontiguousarray(maps, np.float16).data)
                indices.extend(own)
                shape = maps.shape[1:]
        np.savez(about, indices=np.array(indices), shape=np.array(shape))
        part.replace(whole)
    with np.load(about) as found:
        indices_of, sides = found["indices"], found["shape"].tolist()
    values = np.memmap(whole, np.float16, "r", shape=(len(indices_of), *sides))
    return Maps(values=values, indices=indices_of)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptInputs:
    """The module `inputs` of a task on kept feature maps: a view of an image is a feature map of one of its views."""

    dataset: Dataset
    kept: Lazy[KeptMaps]

    def views(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, limit: int) -> "KeptInputs":
        """Return the views of the training images."""
        return self

    def view(self, index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the feature map of one of the views of an image, and its label."""
        kept = self.kept.get()
        row = int(rng.integers(kept.views)) * kept.images + index
        return kept.train.values[row], self.dataset.train.labels[kept.train.indices[row]]

    def stack(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        """Return the labels of a batch."""
        return np.array(targets, dtype=self.dataset.train.labels.dtype)

    def held_out(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, batch_size: int, limit: int) -> HeldOut:
        """Return a function that gives the feature maps of the held-out images with their labels."""
        held = self.dataset.val if len(self.dataset.val) else self.dataset.train

        def stream() -> Iterator[tuple[np.ndarray, Any]]:
            maps = self.kept.get().held_out
            for first in range(0, len(maps.values), batch_size):
                rows = slice(first, first + batch_size)
                yield np.array(maps.values[rows]), held.labels[maps.indices[rows]]

        return stream


class _KeptLearning:
    """The task's module `learning` with other inputs."""

    def __init__(self, learning: Learning, inputs: KeptInputs) -> None:
        self._learning, self.inputs = learning, inputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learning, name)


def kept_learning(dataset: Dataset, kept: Lazy[KeptMaps]) -> Learning:
    """Return how a task is learnt from feature maps instead of images; they are made when they are first needed."""
    return cast(Learning, _KeptLearning(learning_of(dataset), KeptInputs(dataset=dataset, kept=kept)))
