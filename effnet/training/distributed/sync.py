"""Synchronisation of several processes: the gradient of a step, and BatchNorm over all of its images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from effnet.training.distributed.ranks import Ranks, Share
from effnet.training.optim.norms import norms_of

_BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def add_up_(model: nn.Module, loss: Tensor, ranks: Ranks, share: Share) -> None:
    """Sum gradients and loss over the whole step, and average the BatchNorm statistics over the processes.

    All processes must have met. It is done after the backward pass, not within: every process can still report a
    failure, and shares need not be even.
    """
    if ranks.size == 1:
        return
    statistics = []
    for norm in norms_of(model):
        if norm.training and not isinstance(norm, SyncNorm):
            statistics += [norm.running_mean.mul_(share.weight), norm.running_var.mul_(share.weight)]
    ranks.add_([p.grad for p in model.parameters() if p.grad is not None] + statistics + [loss])


class SyncNorm(nn.SyncBatchNorm):
    """BatchNorm with the statistics of all processes' images; torch's own is for GPUs only."""

    ranks: Ranks
    synced = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, channels, height, width] to the same shape."""
        if not (self.synced and self.training):
            return _BatchNorm.forward(self, input)
        return super().forward(input) if input.is_cuda else self._normalised(input)

    def _normalised(self, x: Tensor) -> Tensor:
        count = x.numel() // x.shape[1]
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        mean, variance = mean.double(), variance.double()
        moments = torch.cat([mean.new_tensor([count]), mean * count, (variance + mean**2) * count])
        everywhere, first, second = _Sum.apply(moments, self.ranks).split([1, len(mean), len(mean)])
        mean = first / everywhere
        variance = second / everywhere - mean**2
        self._remember(mean.detach(), variance.detach() * everywhere / (everywhere - 1))
        scale = self.weight * (variance + self.eps).rsqrt().to(x.dtype)
        shift = self.bias - mean.to(x.dtype) * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class _Sum(Function):
    """The sum over processes; its backward pass sums the gradients."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(numbers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradients[0]), None


def sync_norms_(model: nn.Module, ranks: Ranks) -> None:
    """Replace every BatchNorm layer that tracks statistics by a synchronised one; keep its parameters."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                setattr(parent, name, _sync(norm, ranks))


def _sync(norm: nn.modules.batchnorm._BatchNorm, ranks: Ranks) -> SyncNorm:
    made = SyncNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    made.weight, made.bias, made.ranks = norm.weight, norm.bias, ranks
    for name, buffer in norm.named_buffers():
        made.register_buffer(name, buffer)
    return made


def synced(model: nn.Module) -> bool:
    """Return whether the model has BatchNorm layers that wait for those of other processes."""
    return any(isinstance(module, SyncNorm) for module in model.modules())


@contextmanager
def unsynced(model: nn.Module) -> Iterator[None]:
    """Make BatchNorm use only this process's images inside the context, and wait for no other process."""
    norms = [module for module in model.modules() if isinstance(module, SyncNorm)]
    for norm in norms:
        norm.synced = False
    try:
        yield
    finally:
        for norm in norms:
            norm.synced = True
