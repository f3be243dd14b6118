"""Training of detectors: checks of the data, the loss, and validation on held-out images."""

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data.annotated.objects import CLASS, NORMAL, STATE
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError, InputError
from effnet.training.detection import inputs
from effnet.training.detection.findable import findable
from effnet.training.detection.head import Answers, Heads
from effnet.training.detection.kept import KeptDataset, KeptInputs, kept_loss
from effnet.training.detection.objective import PointLoss
from effnet.training.detection.validated import validate
from effnet.training.losses import Batch, LossFn
from effnet.training.recipe.schema import Recipe

# A detector that has learnt nothing answers every point with a score of 0.01, and boxes of no overlap: about this loss.
_GUESSED = 5.0


def bound(dataset: Dataset) -> Any:
    """Return the functions of effnet.training.learning for this data set."""
    kept = dataset if isinstance(dataset, KeptDataset) else None
    return SimpleNamespace(
        check=check,
        loss_of=loss_of,
        guessed_loss=guessed_loss,
        validate=functools.partial(validate, num_classes=len(dataset.class_names), kept=kept and kept.held_out),
        inputs=KeptInputs(kept) if kept else inputs,
    )


def check(model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return warnings about the objects of a run; raise DataError or InputError if it cannot work."""
    check_recipe(recipe)
    Heads(model)
    classes, spec = len(dataset.class_names), model.spec
    if spec.num_classes != classes:
        raise DataError(
            f"the network must have as many classes as the data set, {classes}; it has {spec.num_classes}: build it "
            f"with num_classes={classes}"
        )
    if not _objects(dataset.train):
        raise DataError("the images to train on must have objects that count; none of them has any")
    said = [_absent(dataset, "train", "These classes have no objects in train and cannot be learnt")]
    if len(dataset.val):
        said.append(_absent(dataset, "val", "Validation has no objects of these classes and cannot assess them"))
    height, width = spec.input_size
    said.append(findable(dataset.train.labels, spec.decoder, height=height, width=width))
    return [sentence for sentence in said if sentence]


def _objects(split: Split) -> int:
    return int(((split.labels[..., CLASS] >= 0) & (split.labels[..., STATE] == NORMAL)).sum())


def _absent(dataset: Dataset, split: str, sentence: str) -> str:
    present = set(np.unique(getattr(dataset, split).labels[..., CLASS]).astype(int).tolist())
    names = [name for number, name in enumerate(dataset.class_names) if number not in present]
    return f"{sentence}: {', '.join(names)}" if names else ""


def check_recipe(recipe: Recipe) -> None:
    """Raise InputError for settings that boxes do not have."""
    augment, loss, wrong = recipe.augment, recipe.loss, []
    for name in ("rotation", "erasing", "mixup", "cutmix"):
        if got := getattr(augment, name):
            wrong.append(f"augment.{name} must be 0, got {got:g}")
    if augment.policy != "none":
        wrong.append(f"augment.policy must be none, got {augment.policy}")
    if loss.name != "cross_entropy":
        wrong.append(f"loss.name must be cross_entropy, got {loss.name}")
    if loss.focal_gamma:
        wrong.append(f"loss.focal_gamma must be 0, got {loss.focal_gamma:g}")
    if loss.teacher:
        wrong.append("loss.teacher must be empty")
    if recipe.balance.method != "none":
        wrong.append(f"balance.method must be none, got {recipe.balance.method}")
    if wrong:
        raise InputError(f"to find objects {'; '.join(wrong)}: boxes do not move with these, or have no such loss")


def loss_of(dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None) -> LossFn:
    """Return the loss of a recipe: that of the network's kind of heads, see `PointLoss` and `AnchorLoss`.

    It is divided by the positives of the images that are computed together: those of a micro-batch, if there are any.
    """
    check_recipe(recipe)
    if isinstance(dataset, KeptDataset):
        return kept_loss(dataset, recipe)
    learns = PointLoss(assigner=recipe.boxes.assigner, box_weight=recipe.boxes.weight)
    heads = functools.cache(lambda model: Heads(model, learns))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        head = heads(model).at(batch.images)
        return head.loss(Answers.of(model(batch.images)), batch.labels)

    return loss


def guessed_loss(dataset: Dataset) -> float:
    """Return about the loss of a detector that has learnt nothing."""
    return _GUESSED
