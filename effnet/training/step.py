"""One optimisation step: micro-batches, mixed precision, gradient clipping, and the check for finite numbers."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data.preprocess import Preprocess
from effnet.training.adversarial.auxiliary import with_attacks
from effnet.training.device import autocast_dtype
from effnet.training.distributed.ranks import ALONE, Met, Ranks, Share
from effnet.training.distributed.sync import add_up_, synced
from effnet.training.guard import first_not_finite
from effnet.training.input.prepare import prepare
from effnet.training.losses import Batch, LossFn
from effnet.training.optim.norms import freeze_norms_
from effnet.training.recipe.schema import Recipe
from effnet.training.state.state import State

# float16 begins with a loss scale of 2^16, halved whenever a gradient overflows; a scale of 2^-8 means an error.
_MOST_SKIPPED = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """The result of a step; if `culprit` names something that is not finite, the weights are unchanged.

    `met` is the state that all processes shared in it.
    """

    loss: float
    gradient_norm: float
    met: Met
    culprit: str = ""


class Stepper:
    """Takes the steps of one run on one device, together with the other processes of `ranks`."""

    def __init__(
        self,
        state: State,
        recipe: Recipe,
        preprocess: Preprocess,
        loss_fn: LossFn,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        if state.auxiliary is not None:
            loss_fn = with_attacks(loss_fn, state.auxiliary, recipe.augment, preprocess)
        self.state, self.preprocess, self.loss_fn, self.device = state, preprocess, loss_fn, device
        self.dtype = autocast_dtype(recipe.train.precision, device)
        self.skipped = 0  # consecutive steps that float16 has skipped

    def step(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        recipe: Recipe,
        *,
        number: int,
        rate: float,
        share: Share | None = None,
        asked: Callable[[], bool] = lambda: False,
    ) -> Stepped:
        """Update the weights with the gradient of the whole batch's mean loss; `number` counts steps from 0.

        `images` are uint8 [batch, R, R, C], `labels` their targets [batch, ...]; `recipe` is that of the current epoch.
        If the batch is divided, they are this process's `share`. `asked` says whether this process was interrupted, so
        that all processes know.
        """
        share = share or ALONE.share(len(labels))
        model, optimizer, scaler = self.state.model, self.state.optimizer, self.state.scaler
        model.train()
        if recipe.train.frozen_norms:
            freeze_norms_(model)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        if synced(model):  # all processes must be here before BatchNorm layers wait for each other
            self.ranks.meet()
        compute = functools.partial(self._losses, images, labels, recipe, share=share, number=number)
        loss = compute(backward=True)
        met = self.ranks.meet(asked=asked())
        add_up_(model, loss, self.ranks, share)
        scaler.unscale_(optimizer)
        gradients = [p.grad for p in self.state.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # The only time a step waits for the device; before the update, so that the weights stay finite.
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        if not self._may_go_on(loss_value, norm_value):
            culprit = first_not_finite(model, functools.partial(compute, backward=False))
            return Stepped(loss=loss_value, gradient_norm=norm_value, met=met, culprit=self._worst(culprit))
        if 0 < recipe.train.clip_norm < norm_value:
            nn.utils.clip_grads_with_norm_(self.state.parameters, recipe.train.clip_norm, norm)
        scaler.step(optimizer)
        scaler.update()
        return Stepped(loss=loss_value, gradient_norm=norm_value, met=met)

    def _worst(self, culprit: str) -> str:
        """Return the culprit of the first process whose layers or loss are not finite, or else that of the gradient."""
        self.ranks.meet()
        found = self.ranks.gather(culprit)
        return min(found, key=lambda text: "gradient" in text)

    def _may_go_on(self, loss: float, norm: float) -> bool:
        """Return whether training may go on; a step whose gradient overflows float16 is skipped by the scaler."""
        if not math.isfinite(loss):
            return False
        if math.isfinite(norm):
            self.skipped = 0
            return True
        self.skipped += 1
        return self.state.scaler.is_enabled() and self.skipped < _MOST_SKIPPED

    def _losses(
        self, images: np.ndarray, labels: np.ndarray, recipe: Recipe, *, share: Share, number: int, backward: bool
    ) -> Tensor:
        """Return the share's part of the mean loss; with `backward`, accumulate its gradient over micro-batches.

        BatchNorm statistics are those of each micro-batch.
        """
        # The seed depends only on step and process, so that a resumed run draws the same numbers.
        torch.manual_seed((recipe.train.seed * 1_000_003 + number) * self.ranks.size + self.ranks.rank)
        batch = prepare(images, labels, recipe, self.preprocess, device=self.device, step=number, first=share.first)
        total = torch.zeros((), device=self.device)
        for part in split_batch(batch, num_parts(share, recipe)):
            weight = share.weight * len(part.labels) / len(labels)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                loss = self.loss_fn(self.state.model, part)
            if backward:
                self.state.scaler.scale(loss * weight if weight < 1 else loss).backward()
            total += loss.detach() * weight
        return total


def num_parts(share: Share, recipe: Recipe) -> int:
    """Return the number of micro-batches of every process's share, of at most train.micro_batch images.

    Unless BatchNorm statistics are frozen, no part has a single image: three images, in parts of two, are one part.
    """
    most = recipe.train.micro_batch
    parts = 1 if not most else math.ceil(share.largest / most)
    if not recipe.train.frozen_norms:
        parts = min(parts, share.smallest // 2)
    return max(1, parts)


def split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yield parts of nearly equal size."""
    count = len(batch.labels)
    if parts == 1:
        yield batch
        return
    bounds = [count * number // parts for number in range(parts + 1)]
    for first, last in itertools.pairwise(bounds):
        yield _rows(batch, first, last)


def _rows(value: Any, first: int, last: int) -> Any:
    """Return some images of a batch: the rows of every tensor, also of nested ones."""
    if isinstance(value, Tensor):
        return value[first:last]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {field.name: _rows(getattr(value, field.name), first, last) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **fields)
