"""Checks before a run begins."""

from torch import nn

from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.nn.network import Trunk
from effnet.training.learning import Learning, learning_of
from effnet.training.norms import norms_of
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe


def check_run(model: nn.Module, dataset: Dataset, recipe: Recipe, learning: Learning | None = None) -> list[str]:
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
    if recipe.train.recompute != "none" and not isinstance(model, Trunk):
        raise InputError(f"train.recompute needs a network made by effnet.build; got {type(model).__name__}")
    return (learning or learning_of(dataset)).check(model, dataset, recipe)
