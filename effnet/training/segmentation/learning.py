"""Training of segmenters: checks of the data, the loss, and validation on held-out images."""

import math

import numpy as np
import torch
from torch import nn

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError, InputError
from effnet.training.losses import LossFn
from effnet.training.recipe.schema import Recipe
from effnet.training.segmentation import inputs
from effnet.training.segmentation.losses import as_tensor, pixel_weights, segmentation_loss
from effnet.training.segmentation.validated import validate

__all__ = ["check", "guessed_loss", "inputs", "loss_of", "validate"]


def check(model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return warnings about the classes of a run; raise DataError or InputError if it cannot work."""
    check_recipe(recipe)
    classes = len(dataset.class_names)
    spec = getattr(model, "spec", None)
    if spec is not None and spec.num_classes != classes:
        raise DataError(
            f"the network must have as many outputs as the masks have classes, {classes}; it has {spec.num_classes}: "
            f"build it with num_classes={classes}"
        )
    train = np.sum([label.pixels for label in dataset.train.labels], axis=0)
    if not train[:-1].any():
        raise DataError("the masks to train on must have pixels of a class; all of theirs are ignored")
    said = []
    if unlearnt := _named(dataset, train[:-1] == 0):
        said.append(f"These classes have no pixels in train and cannot be learnt: {unlearnt}")
    if len(dataset.val):
        val = np.sum([label.pixels for label in dataset.val.labels], axis=0)
        if unseen := _named(dataset, (val[:-1] == 0) & (train[:-1] > 0)):
            said.append(f"Validation has no pixels of these classes and cannot assess them: {unseen}")
    return said


def _named(dataset: Dataset, chosen: np.ndarray) -> str:
    return ", ".join(name for name, flag in zip(dataset.class_names, chosen, strict=True) if flag)


def check_recipe(recipe: Recipe) -> None:
    """Raise InputError for settings that masks do not have."""
    augment, loss, wrong = recipe.augment, recipe.loss, []
    for name, got in (("rotation", augment.rotation), ("mixup", augment.mixup), ("cutmix", augment.cutmix),
                      ("erasing", augment.erasing)):  # fmt: skip
        if got:
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
        wrong.append(f"balance.method must be none, got {recipe.balance.method} (masks.class_weights weighs classes)")
    if wrong:
        raise InputError(f"for masks {'; '.join(wrong)}: masks do not move with these, or have no such loss")


def loss_of(dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None) -> LossFn:
    """Return the loss of a recipe; see `segmentation_loss`."""
    check_recipe(recipe)
    weights = None
    if recipe.masks.class_weights:
        counts = np.sum([label.pixels[:-1] for label in dataset.train.labels], axis=0)
        weights = as_tensor(pixel_weights(counts, strength=recipe.masks.class_weights), device)
    return segmentation_loss(dice=recipe.masks.dice, weights=weights, smoothing=recipe.loss.label_smoothing)


def guessed_loss(dataset: Dataset) -> float:
    """Return the loss of uniform guesses: their cross-entropy, and at most 1 of Dice."""
    return math.log(max(2, len(dataset.class_names))) + 1
