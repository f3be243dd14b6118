"""Failures of training: diverged runs, the files they leave and their errors."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from effnet.errors import EffnetError
from effnet.training.learning import Validated
from effnet.training.recipe.schema import Recipe
from effnet.training.state.checkpoint import state_tensors
from effnet.training.state.position import Position
from effnet.training.state.state import State
from effnet.training.state.tensorfile import save_tensors
from effnet.training.step import Stepped

DIVERGED = "diverged.safetensors"


def give_up(
    stepped: Stepped,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    state: State,
    position: Position,
    recipe: Recipe,
    rate: float,
    folder: Path,
) -> EffnetError:
    """Save the weights and the batch on which numbers stopped being finite; return the error to raise."""
    path = folder / DIVERGED
    batch = {"batch.images": torch.from_numpy(images), "batch.labels": torch.from_numpy(labels)}
    metadata = {"position": json.dumps(asdict(position)), "culprit": stepped.culprit}
    save_tensors(state_tensors(state) | batch, path, metadata=metadata)
    lost = not math.isfinite(stepped.loss)
    what = f"the loss became {stepped.loss}" if lost else f"the gradient's norm became {stepped.gradient_norm}"
    half = ", or train.precision float32 or bfloat16" if state.scaler.is_enabled() else ""
    return EffnetError(
        f"{what} at step {position.step + 1} of epoch {position.epoch + 1}, at learning rate {rate:.2g}; use a lower "
        f"one (train.lr is {recipe.train.lr:g}){half}. Checked layer by layer, {stepped.culprit}. The weights before "
        f"that step and its batch are in {path}; the last checkpoint is in {folder}"
    )


def exploded(position: Position, *, recipe: Recipe, rate: float) -> EffnetError:
    """Return the error to raise if the loss has been far above that of guessing for long."""
    return EffnetError(
        f"training diverges: at step {position.step} of epoch {position.epoch + 1} the loss had been more than ten "
        f"times that of guessing for {position.high_steps} consecutive steps (it began at "
        f"{position.first_loss:.3g}), at learning rate {rate:.2g}; use a lower one (train.lr is {recipe.train.lr:g}) "
        "and a new folder"
    )


def check_finite(found: Validated, *, position: Position, recipe: Recipe) -> None:
    """Raise EffnetError if the validation loss is not finite."""
    if not math.isfinite(found.loss):
        raise EffnetError(
            f"the validation loss became {found.loss} after epoch {position.epoch + 1}: the averaged weights overflow; "
            f"use a lower learning rate (train.lr is {recipe.train.lr:g}) and a new folder"
        )
