"""Checks before a run begins."""

import numpy as np
from torch import nn

from effnet.data.datasets import Dataset
from effnet.errors import DataError, InputError
from effnet.nn.network import Network
from effnet.training.norms import norms_of
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe


def check_run(model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return warnings about a run; raise InputError if it cannot work."""
    learns = bool(norms_of(model)) and not recipe.train.frozen_norms
    smallest = min((recipe_at(recipe, e).train.micro_batch or 2 for e in range(recipe.train.epochs)), default=2)
    if learns and smallest < 2:
        raise InputError(
            "train.micro_batch must be at least 2, or 0 for the whole batch: BatchNorm cannot compute statistics of a "
            "single image; got 1. Set train.frozen_norms to keep the statistics of pretrained weights"
        )
    if recipe.train.precise_norms and recipe.train.frozen_norms:
        raise InputError(
            "train.precise_norms recomputes the BatchNorm statistics, train.frozen_norms keeps them; set one of them"
        )
    if recipe.train.precise_norms == 1:
        raise InputError("train.precise_norms must be 0 or at least 2 images; got 1")
    if recipe.train.recompute != "none" and not isinstance(model, Network):
        raise InputError(f"train.recompute needs a network made by effnet.build; got {type(model).__name__}")
    return _check_classes(model, dataset)


def _check_classes(model: nn.Module, dataset: Dataset) -> list[str]:
    classes = len(dataset.class_names)
    if isinstance(model, Network) and model.spec.num_classes != classes:
        raise DataError(
            f"the network must have as many outputs as the data set has classes, {classes}; "
            f"it has {model.spec.num_classes}: build it with num_classes={classes}"
        )
    for name in ("train", "val"):
        labels = getattr(dataset, name).labels
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(f"labels in {name} must lie in 0..{classes - 1}; found {labels.min()} to {labels.max()}")
    absent = _absent(dataset, dataset.train.labels)
    if absent:
        raise DataError(f"every class must have images in train, but these have none there: {absent}")
    unseen = _absent(dataset, dataset.val.labels) if len(dataset.val) else ""
    return [f"Validation has no images of these classes and cannot assess them: {unseen}"] if unseen else []


def _absent(dataset: Dataset, labels: np.ndarray) -> str:
    present = set(np.unique(labels).tolist())
    return ", ".join(name for number, name in enumerate(dataset.class_names) if number not in present)
