"""Training of several outputs: checks of the data, the loss, heads on features, calibration, and validation."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.data.several.outputs import OutputSpec
from effnet.errors import DataError, InputError
from effnet.measurement.classification.calibration import Abstain, Calibration
from effnet.measurement.several.calibrate import calibrate_outputs
from effnet.nn.network import Network
from effnet.training.device import to_input
from effnet.training.distill import check_kept, load_teacher, read_teacher, taught
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.learning import OwnHead
from effnet.training.losses import LossFn
from effnet.training.recipe.schema import Balance, Recipe
from effnet.training.several.heads import known_heads, train_heads
from effnet.training.several.objective import objective_of, output_weights, soft_loss
from effnet.training.several.validated import OutputsValidated, validated
from effnet.training.transfer.head import Head


def bound(dataset: Dataset) -> Any:
    """Return the functions of effnet.training.learning for this data set."""
    specs = dataset.specs
    return SimpleNamespace(
        check=check,
        loss_of=loss_of,
        guessed_loss=guessed_loss,
        validate=partial(validate, specs=specs),
        fit_head=partial(fit_head, specs=specs),
        calibrated=calibrated,
    )


def check(model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return warnings about a run; raise DataError or InputError if it cannot work."""
    columns = len(dataset.class_names)
    if isinstance(model, Network) and model.spec.num_classes != columns:
        raise DataError(
            f"the network must have as many outputs as the data set has columns, {columns}; it has "
            f"{model.spec.num_classes}: build it with num_classes={columns}"
        )
    check_recipe(recipe, dataset)
    return []


def check_recipe(recipe: Recipe, dataset: Dataset) -> None:
    """Raise InputError for settings that several outputs do not have."""
    plan = recipe.loss
    wrong = []
    if plan.name != "cross_entropy":
        wrong.append(f"loss.name must be cross_entropy, got {plan.name} (loss.tags is the loss of tags)")
    if plan.focal_gamma:
        wrong.append(f"loss.focal_gamma must be 0, got {plan.focal_gamma:g}")
    if recipe.balance.method not in ("none", "adjust"):
        wrong.append(f"balance.method must be none or adjust, got {recipe.balance.method}: images have several labels")
    if wrong:
        raise InputError(f"for several outputs {'; '.join(wrong)}")
    output_weights(plan.weights, [spec.name for spec in dataset.specs])


def loss_of(dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None) -> LossFn:
    """Return the loss of a recipe: that of the labels, and of a teacher's answers if it has one."""
    check_recipe(recipe, dataset)
    objective, plan = objective_of(dataset, recipe, device=device), recipe.loss
    if not plan.teacher:
        return lambda model, batch: objective(model(batch.images), batch)
    check_kept(recipe)
    config = read_teacher(plan.teacher, class_names=dataset.class_names, channels=preprocess.channels)
    soft = partial(
        soft_loss, objective=objective, temperature=plan.temperature, teacher=[_rescaled(s) for s in config.specs]
    )
    return taught(
        load_teacher(plan.teacher, device),
        plan,
        preprocess=preprocess,
        teacher_preprocess=config.preprocess,
        labels=objective,
        soft=soft,
    )


def _rescaled(spec: OutputSpec) -> Callable[[Tensor], Tensor]:
    return lambda values: spec.mean + spec.scale * values.double()


def fit_head(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    dataset: Dataset,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    balance: Balance,
    own: OwnHead | None,
    specs: Sequence[OutputSpec],
) -> Head:
    """Return the linear layer fitted on features, or the weights' `own` if that is better.

    An own layer is that of the same data, so that its numbers have the same mean and deviation.
    """
    head = train_heads(
        features, targets, specs=specs, val_features=val_features, val_targets=val_targets, balance=balance
    )
    if own is None:
        return head
    before = known_heads(
        own.weight, own.bias, val_features, val_targets, specs=specs, train_targets=dataset.train.labels,
        balance=balance, removed=own.removed,
    )  # fmt: skip
    return max(before, head, key=lambda found: found.score(balance))


def calibrated(
    config: ModelConfig, rows: np.ndarray, targets: np.ndarray, *, dataset: Dataset, abstain: Abstain
) -> tuple[ModelConfig, Calibration]:
    """Return the config with temperatures and thresholds, from rows at temperature 1 on validation images."""
    specs, found = calibrate_outputs(rows, targets, config.specs, abstain)
    return replace(config, specs=specs), found


def guessed_loss(dataset: Dataset) -> float:
    """Return the loss of guesses: uniform ones of classes and tags, the mean for numbers."""
    losses = {"many": math.log(2), "number": 0.5}
    return sum(losses.get(spec.kind) or math.log(max(2, spec.width)) for spec in dataset.specs)


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
    device: torch.device,
    ranks: Ranks = ALONE,
    *,
    specs: Sequence[OutputSpec] = (),
) -> OutputsValidated:
    """Return the result of `model`, in evaluation mode, on batches of uint8 images and their targets.

    Each process of `ranks` gives batches of its own, perhaps none; all get the joint result.
    """
    model.eval()
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for images, targets in batches:
        found.append((model(to_input(images, preprocess, device)).float().cpu().numpy(), targets))
    ranks.meet()
    every = [pair for some in ranks.gather(found) for pair in some]
    values, targets = (np.concatenate(parts) for parts in zip(*every, strict=True))
    return validated(values, targets, specs)
