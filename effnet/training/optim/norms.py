"""BatchNorm in training: frozen statistics, and recomputed ones."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from effnet.nn.recompute import scratch_buffers
from effnet.training.distributed.ranks import ALONE, Ranks

_Norm = nn.modules.batchnorm._BatchNorm


def norms_of(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return every BatchNorm layer of `model` that tracks statistics."""
    return [module for module in model.modules() if isinstance(module, _Norm) and module.running_mean is not None]


def freeze_norms_(model: nn.Module) -> None:
    """Make every BatchNorm layer use its running statistics instead of those of the batch.

    If a network has a decoder, those of its backbone: the others are new, and have no statistics to keep.
    """
    decodes = getattr(getattr(model, "spec", None), "decoder", None) is not None
    for part in backbone_parts(model) if decodes else (model,):
        for norm in norms_of(part):
            norm.eval()


def backbone_parts(model: nn.Module, stages: int | None = None) -> list[nn.Module]:
    """Return the stem and the first `stages` of a network, by default all."""
    return [model.get_submodule("stem"), *list(model.get_submodule("stages").children())[:stages]]


@contextmanager
def precise_norms(model: nn.Module, batches: Iterable[Tensor], ranks: Ranks = ALONE) -> Iterator[None]:
    """Recompute the BatchNorm statistics from all of `batches`, normalised images, for the duration of the context.

    The running averages of training lag behind the weights. Source: Wu & Johnson 2021, "Rethinking Batch in BatchNorm",
    section 3: the mean of the batch means, and a variance that includes their spread. Batches are weighted by their
    size. Weights are frozen and dropout is off, as in evaluation. Each process of `ranks` gives batches of its own.
    """
    with scratch_buffers(model):
        _take_statistics_(model, batches, ranks)
        yield


@torch.no_grad()
def _take_statistics_(model: nn.Module, batches: Iterable[Tensor], ranks: Ranks) -> None:
    norms = norms_of(model)
    momenta = [norm.momentum for norm in norms]
    sums = [torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics become those of the batch
    counts = {id(norm): _Count() for norm in norms}
    hooks = [norm.register_forward_pre_hook(counts[id(norm)]) for norm in norms]
    try:
        for images in batches:
            if len(images) == 1:  # the last batch; a single image may have no statistics
                continue
            model(images)
            for norm, total in zip(norms, sums, strict=True):
                _add_(total, norm, counts[id(norm)].values)
    finally:
        model.eval()
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    ranks.meet()
    for norm, (count, first, second) in zip(norms, map(ranks.total, sums), strict=True):
        mean = first / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((second / count - mean**2).clamp_min(0) * count / (count - 1).clamp_min(1))


class _Count:
    """Remembers how many values a channel has in the input of a BatchNorm layer."""

    values = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.values = inputs[0].numel() // inputs[0].shape[1]


def _add_(total: Tensor, norm: nn.modules.batchnorm._BatchNorm, count: int) -> None:
    """Add count, sum and sum of squares of a batch, from its running statistics; torch's variance is unbiased."""
    mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double() * (count - 1) / count
    total += torch.stack([torch.full_like(mean, count), mean * count, (variance + mean**2) * count])
