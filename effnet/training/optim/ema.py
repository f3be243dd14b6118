"""The exponential moving average (EMA) of the weights, which is validated in their place."""

import math

import torch
from torch import nn

from effnet.training.recipe.schema import Train


def move_average_(average: nn.Module, model: nn.Module, train: Train, *, step: int, batch: int) -> None:
    """Update the average after `step` (from 0), the epoch's `batch` (from 0), if an update is due."""
    if train.ema_decay and (batch + 1) % train.ema_every == 0:
        update_average_(average, model, step=step, decay=train.ema_decay, steps=train.ema_every)


def finish_average_(average: nn.Module, model: nn.Module, train: Train, *, steps: int, batches: int) -> None:
    """Update the average for the remaining steps of an epoch of `batches`, after `steps` of the run.

    If no average is kept, it becomes a copy of the model.
    """
    left = batches % train.ema_every if train.ema_decay else 1
    if left:
        update_average_(average, model, step=steps - 1, decay=train.ema_decay, steps=left)


@torch.no_grad()
def update_average_(average: nn.Module, model: nn.Module, *, step: int, decay: float, steps: int = 1) -> None:
    """Update the averaged weights and BatchNorm statistics for the `steps` steps that end with `step`.

    With a `decay` of 0 they become the model's.
    """
    keep = kept_share(step, decay=decay, steps=steps)
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    targets, sources = [], []
    for mine, theirs in pairs:
        if mine.is_floating_point():
            targets.append(mine)
            sources.append(theirs)
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_(targets, sources, 1 - keep)


def kept_share(step: int, *, decay: float, steps: int = 1) -> float:
    """Return the share of the average that is kept over the `steps` steps that end with `step` (from 0).

    One step keeps min(decay, (1 + step) / (10 + step)), so that a short run is not an average of its first weights;
    several steps keep the product. An average updated every few steps thus equals one updated at every step if the
    weights stood still in between. Source: tf.train.ExponentialMovingAverage with num_updates, which counts steps.
    """
    return math.prod(min(decay, (1 + n) / (10 + n)) for n in range(step - steps + 1, step + 1))
