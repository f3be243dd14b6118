"""Train a detector on a pretrained backbone: its decoder first, on kept feature maps, then all of it."""

import dataclasses
from pathlib import Path

import torch

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import DenseNetwork
from effnet.progress import Listener
from effnet.training.detection.kept import kept_dataset, kept_recipe, kept_views_within
from effnet.training.device import pick_device
from effnet.training.loop import TrainResult, train
from effnet.training.recipe.schema import Recipe
from effnet.training.state.checkpoint import trained_seconds

DECODER = "decoder"
"""The folder of the first stage in that of the run."""


def train_detector(
    model: DenseNetwork,
    dataset: Dataset,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    folder: Path,
    listener: Listener | None = None,
    device: torch.device | None = None,
    deadline_seconds: float | None = None,
) -> TrainResult:
    """Train `model`, whose backbone is pretrained, in place; see `effnet.training.loop.train`.

    There is no first stage if `recipe.kept.views` is 0, or if not even one view of each image fits into memory:
    with that number of images it gains nothing. It is resumed as the second one is. `deadline_seconds` are those of
    both together, without those that the first took before it was resumed; it takes at most half.
    """
    device = device or pick_device()
    total, spent = deadline_seconds, 0.0
    if total is not None:
        total += trained_seconds(folder / DECODER)
    model.to(device)
    if views := kept_views_within(model, len(dataset.train), recipe, preprocess.size):
        recipe = dataclasses.replace(recipe, kept=dataclasses.replace(recipe.kept, views=views))
        first = train(
            model,
            kept_dataset(model, dataset, recipe, preprocess, device=device),
            kept_recipe(recipe, len(model.stages)),
            preprocess,
            folder=folder / DECODER,
            listener=listener,
            device=device,
            deadline_seconds=None if total is None else total / 2,
        )
        spent = first.seconds
        model.load_state_dict(first.model.state_dict())
        model.requires_grad_(True)
    return train(
        model,
        dataset,
        recipe,
        preprocess,
        folder=folder,
        listener=listener,
        device=device,
        deadline_seconds=None if total is None else max(1.0, total - spent),
    )
