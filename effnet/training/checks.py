"""Checks before a run begins."""

from torch import nn

from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.nn.network import Trunk
from effnet.training.adversarial.auxiliary import num_attacked
from effnet.training.learning import Learning, learning_of
from effnet.training.optim.norms import norms_of
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe


def check_run(
    model: nn.Module, dataset: Dataset, recipe: Recipe, learning: Learning | None = None, *, processes: int = 1
) -> list[str]:
    """Return warnings about a run of this number of processes; raise InputError if it cannot work."""
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
    if recipe.augment.adversarial:
        _check_attacks(model, recipe, learns=learns, processes=processes)
    if recipe.train.recompute != "none" and not isinstance(model, Trunk):
        raise InputError(f"train.recompute needs a network made by effnet.build; got {type(model).__name__}")
    return (learning or learning_of(dataset)).check(model, dataset, recipe)


def _check_attacks(model: nn.Module, recipe: Recipe, *, learns: bool, processes: int) -> None:
    """Raise InputError if a run cannot train on attacked images with BatchNorm of their own."""
    if not learns or getattr(model, "frozen_norms", False):
        raise InputError(
            "augment.adversarial needs BatchNorm that takes statistics, one for clean and one for attacked images; "
            "that of this network is frozen or folded into its convolutions, as in fine-tuning with few images: train "
            "from scratch (effnet train --recipe advprop), or set augment.adversarial=0"
        )
    if getattr(getattr(model, "spec", None), "decoder", None) is not None:
        raise InputError("augment.adversarial attacks classifiers; got a detector or a segmenter: set it to 0")
    if processes > 1:
        raise InputError(
            f"augment.adversarial trains in one process; got {processes}: start effnet without torchrun, or set it to 0"
        )
    smallest = recipe.train.micro_batch or recipe.train.batch_size
    if not num_attacked(smallest, recipe.augment.adversarial):
        raise InputError(
            f"augment.adversarial must leave at least two attacked and two clean images in a batch; got "
            f"{recipe.augment.adversarial:g} of {smallest}: raise it, or train.micro_batch"
        )
