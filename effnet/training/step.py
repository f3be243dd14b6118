"""One step of optimisation: micro-batches, precision, clipping, and a look at whether numbers are still finite."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data.preprocess import Preprocess
from effnet.training.guard import first_not_finite
from effnet.training.losses import Batch, LossFn
from effnet.training.norms import freeze_norms_
from effnet.training.precision import autocast_dtype
from effnet.training.prepare import prepare
from effnet.training.recipe import Recipe
from effnet.training.state import State

# float16 begins with a scale of 2^16 and halves it whenever a gradient overflows; with one of 2^-8 something is wrong.
_MOST_SKIPPED = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What came of a step; where `culprit` says what is not finite, the weights are as they were before."""

    loss: float
    gradient_norm: float
    culprit: str = ""


class Stepper:
    """Takes the steps of one run on one device."""

    def __init__(
        self, state: State, recipe: Recipe, preprocess: Preprocess, loss_fn: LossFn, device: torch.device
    ) -> None:
        self.state, self.preprocess, self.loss_fn, self.device = state, preprocess, loss_fn, device
        self.dtype = autocast_dtype(recipe.train.precision, device)
        self.skipped = 0  # steps on end that float16 has skipped

    def step(self, images: np.ndarray, labels: np.ndarray, recipe: Recipe, *, number: int, rate: float) -> Stepped:
        """Moves the weights by the gradient of the whole batch's mean loss; `number` counts steps from 0.

        `images` are uint8 [batch, R, R, C], `labels` int64 [batch]; `recipe` is as of the present epoch.
        """
        model, optimizer, scaler = self.state.model, self.state.optimizer, self.state.scaler
        model.train()
        if recipe.train.frozen_norms:
            freeze_norms_(model)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        loss = self._losses(images, labels, recipe, number=number, backward=True)
        scaler.unscale_(optimizer)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # The one time a step waits for the device, and before the weights are moved: they stay good.
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        if not self._may_go_on(loss_value, norm_value):
            again = functools.partial(self._losses, images, labels, recipe, number=number, backward=False)
            return Stepped(loss=loss_value, gradient_norm=norm_value, culprit=first_not_finite(model, again))
        if 0 < recipe.train.clip_norm < norm_value:
            nn.utils.clip_grads_with_norm_(model.parameters(), recipe.train.clip_norm, norm)
        scaler.step(optimizer)
        scaler.update()
        return Stepped(loss=loss_value, gradient_norm=norm_value)

    def _may_go_on(self, loss: float, norm: float) -> bool:
        """Returns whether the optimiser may step: a gradient that overflows float16 it skips, and the scale shrinks."""
        if not math.isfinite(loss):
            return False
        if math.isfinite(norm):
            self.skipped = 0
            return True
        self.skipped += 1
        return self.state.scaler.is_enabled() and self.skipped < _MOST_SKIPPED

    def _losses(self, images: np.ndarray, labels: np.ndarray, recipe: Recipe, *, number: int, backward: bool) -> Tensor:
        """Returns the mean loss of the batch; with `backward`, its gradient is added up over the micro-batches.

        Norms take their statistics from each micro-batch.
        """
        # What is random here draws from a generator that depends on the step alone: a resumed run draws alike.
        torch.manual_seed(recipe.train.seed * 1_000_003 + number)
        batch = prepare(images, labels, recipe, self.preprocess, device=self.device, step=number)
        total = torch.zeros((), device=self.device)
        for part in split_batch(batch, recipe):
            share = len(part.labels) / len(labels)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                loss = self.loss_fn(self.state.model, part)
            if backward:
                self.state.scaler.scale(loss * share if share < 1 else loss).backward()
            total += loss.detach() * share
        return total


def split_batch(batch: Batch, recipe: Recipe) -> Iterator[Batch]:
    """Yields parts of nearly equal size, of at most train.micro_batch pictures.

    Where norms take statistics no part has a single picture: of three pictures, in parts of two, there is one part.
    """
    count, most = len(batch.labels), recipe.train.micro_batch
    parts = 1 if not most else math.ceil(count / most)
    if not recipe.train.frozen_norms:
        parts = max(1, min(parts, count // 2))
    if parts == 1:
        yield batch
        return
    bounds = [count * number // parts for number in range(parts + 1)]
    for first, last in itertools.pairwise(bounds):
        yield _rows(batch, first, last)


def _rows(value: Any, first: int, last: int) -> Any:
    """Returns some pictures of a batch: rows of every tensor, however deep in it."""
    if isinstance(value, Tensor):
        return value[first:last]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: _rows(getattr(value, field.name), first, last) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **fields)
