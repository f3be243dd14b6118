"""The first stage of training a detector: its decoder alone, on feature maps of the backbone that are computed once.

They belong to some random views of each image, drawn before. The rows of `Kept` take the place of images in the loop.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.errors import ImageError
from effnet.nn.dense import DenseNetwork
from effnet.training.detection import inputs
from effnet.training.detection.head import Answers, Heads
from effnet.training.detection.objective import PointLoss
from effnet.training.detection.views import padded
from effnet.training.device import normalized, to_pixels
from effnet.training.input.augment import augment_batch
from effnet.training.input.batches import CACHE_BYTES
from effnet.training.input.own import HeldOut, Lazy
from effnet.training.losses import Batch, LossFn
from effnet.training.recipe.schema import Recipe

# Images whose feature maps are computed at once.
_TOGETHER = 8
# Feature maps in memory; with the images and a step of the whole network it stays below 3 GB.
_MOST_BYTES = CACHE_BYTES // 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """Feature maps by level, float16 [rows, channels, height, width], for inputs of `size`, height and width.

    `targets` are those of each row: [rows, m, COLUMNS] of views, or what held-out images show.
    """

    maps: Mapping[int, np.ndarray]
    targets: Any
    size: tuple[int, int]

    def taps(self, rows: np.ndarray, device: torch.device) -> dict[int, Tensor]:
        """Return the feature maps of some rows, float32."""
        return {
            level: torch.from_numpy(found[rows]).to(device, torch.float32, memory_format=torch.channels_last)
            for level, found in self.maps.items()
        }

    def answers(self, model: nn.Module, rows: np.ndarray, device: torch.device) -> Answers:
        """Return the outputs of a detector's decoder for some rows."""
        assert isinstance(model, DenseNetwork)
        return Answers.of(model.decode(self.taps(rows, device), size=self.size))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptDataset(Dataset):
    """A data set of which feature maps are kept: the images are read when the first of them are needed."""

    views: Lazy[Kept]
    held_out: Lazy[Kept]


def kept_recipe(recipe: Recipe, stages: int) -> Recipe:
    """Return the recipe of the first stage for a backbone of `stages` stages, none of which is trained."""
    train, kept = recipe.train, recipe.kept
    return dataclasses.replace(
        recipe,
        train=dataclasses.replace(
            train, epochs=kept.epochs, lr=kept.lr or train.lr, lr_batch=0, frozen_stages=stages, frozen_norms=True,
            micro_batch=0, layer_decay=1.0, start_counts=False,
        ),
        augment=dataclasses.replace(recipe.augment, jitter=0.0),  # that of the views was applied before
        stages=(),
    )  # fmt: skip


def kept_dataset(
    model: DenseNetwork, dataset: Dataset, recipe: Recipe, preprocess: Preprocess, *, device: torch.device
) -> KeptDataset:
    """Return a data set of views of the training images, and of the validation images, by their feature maps."""
    val = dataset.val if len(dataset.val) else dataset.train
    fields = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(Dataset)}
    return KeptDataset(
        **fields,
        views=Lazy(lambda: _keep_views(model, dataset.train, recipe, preprocess, device)),
        held_out=Lazy(lambda: _keep_held_out(model, val, recipe, preprocess, device)),
    )


def _keep_views(
    model: DenseNetwork, split: Split, recipe: Recipe, preprocess: Preprocess, device: torch.device
) -> Kept:
    """Return the feature maps of views: row v x images + i is view v of image i."""
    views = inputs.views(split, recipe, preprocess, limit=CACHE_BYTES)
    targets: list[np.ndarray] = []
    seed = recipe.train.seed

    def batches() -> Iterator[Tensor]:
        for number in range(recipe.kept.views):
            for first in range(0, len(split), _TOGETHER):
                chosen = range(first, min(first + _TOGETHER, len(split)))
                pairs = [_view(views, split, index, recipe, [seed, number]) for index in chosen]
                targets.extend(own for _, own in pairs)
                pixels = to_pixels(np.stack([image for image, _ in pairs]), device)
                step = (number * len(split) + first) // _TOGETHER
                yield augment_batch(pixels, recipe.augment, mean=preprocess.mean, seed=seed, step=step)

    maps = _maps(model, batches(), preprocess, rows=recipe.kept.views * len(split))
    return Kept(maps=maps, targets=padded(targets), size=preprocess.size)


def _view(
    views: inputs.ObjectViews, split: Split, index: int, recipe: Recipe, seed: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a view of an image, of an empty one if it cannot be read."""
    try:
        return views.view(index, recipe, np.random.default_rng([*seed, index]))
    except ImageError:
        return views.empty()


def _keep_held_out(
    model: DenseNetwork, split: Split, recipe: Recipe, preprocess: Preprocess, device: torch.device
) -> Kept:
    shown: list[inputs.Shown] = []
    found = inputs.held_out(split, recipe, preprocess, batch_size=_TOGETHER, limit=0)

    def batches() -> Iterator[Tensor]:
        for images, own in found():
            shown.extend(own)
            yield to_pixels(images, device)

    maps = _maps(model, batches(), preprocess, rows=len(split))
    return Kept(maps=maps, targets=shown, size=preprocess.size)


@torch.no_grad()
def _maps(
    model: DenseNetwork, batches: Iterable[Tensor], preprocess: Preprocess, *, rows: int
) -> dict[int, np.ndarray]:
    """Return the feature maps of batches of uint8 images, float16 by level; at most `rows` of them."""
    training = model.training
    model.eval()
    found: dict[int, np.ndarray] = {}
    done = 0
    for pixels in batches:
        taps = {level: tap.cpu().numpy() for level, tap in model.taps(normalized(pixels, preprocess)).items()}
        for level, tap in taps.items():
            if level not in found:
                found[level] = np.empty((rows, *tap.shape[1:]), np.float16)
            found[level][done : done + len(tap)] = tap
        done += len(pixels)
    model.train(training)
    return {level: values[:done] for level, values in found.items()}


def kept_views_within(model: DenseNetwork, count: int, recipe: Recipe, size: tuple[int, int]) -> int:
    """Return how many of the recipe's views of `count` images fit into memory, perhaps none."""
    with torch.no_grad():
        example = next(model.parameters()).new_zeros(1, model.spec.in_channels, *size)
        one = sum(tap[0].numel() for tap in model.eval().taps(example).values()) * 2
    return min(recipe.kept.views, _MOST_BYTES // max(1, one * count))


class KeptInputs:
    """The module `inputs` of a data set of kept feature maps: rows take the place of images."""

    def __init__(self, dataset: KeptDataset) -> None:
        self.dataset = dataset

    def views(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, limit: int) -> "KeptInputs":
        """Return the views of the training images."""
        return self

    def view(self, index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return an image of one pixel, and the row of one of the views of an image."""
        number = int(rng.integers(recipe.kept.views))
        return np.zeros((1, 1, self.dataset.channels), np.uint8), np.array(number * len(self.dataset.train) + index)

    def stack(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        """Return the rows of a batch, int64 [batch]."""
        return np.array(targets, np.int64)

    def held_out(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, batch_size: int, limit: int) -> HeldOut:
        """Return a function that gives (rows int64 [batch], what they show)."""

        def stream() -> Iterator[tuple[np.ndarray, Sequence[inputs.Shown]]]:
            shown = self.dataset.held_out.get().targets
            for first in range(0, len(shown), batch_size):
                rows = np.arange(first, min(first + batch_size, len(shown)))
                yield rows, [shown[row] for row in rows]

        return stream


def kept_loss(dataset: KeptDataset, recipe: Recipe) -> LossFn:
    """Return the loss of rows of kept feature maps."""
    learns = PointLoss(assigner=recipe.boxes.assigner, box_weight=recipe.boxes.weight)
    heads = functools.cache(lambda model: Heads(model, learns))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        kept, rows, device = dataset.views.get(), batch.labels.cpu().numpy(), batch.images.device
        head = heads(model).at_size(*kept.size, device=device)
        targets = torch.from_numpy(kept.targets[rows]).to(device)
        return head.loss(kept.answers(model, rows, device), targets)

    return loss
