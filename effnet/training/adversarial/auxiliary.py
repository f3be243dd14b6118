"""BatchNorm of its own for attacked images, and the loss of Fast AdvProp, which trains with it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from effnet.data.preprocess import Preprocess
from effnet.training.losses import Batch, LossFn
from effnet.training.optim.norms import norms_of
from effnet.training.recipe.schema import Augment

# The weights of the attack's own pass and of the attacked images. Source: see recipe/published.py, advprop.
_ATTACK_WEIGHT = _ATTACKED_WEIGHT = 0.5
# BatchNorm takes its statistics from at least this many images.
_LEAST = 2


class AuxiliaryNorms(nn.Module):
    """A second BatchNorm for each of a model's, with weights and statistics of its own.

    It lies outside the model: what is exported never has it. Source: Xie et al. 2020 (AdvProp, arXiv 1911.09665).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copy.deepcopy(norm) for norm in norms_of(model))

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Make the model normalise with these inside the context; its own stay unchanged."""
        pairs = list(zip(norms_of(model), self.norms, strict=True))
        _exchange_(pairs)
        try:
            yield
        finally:
            _exchange_(pairs)


def _exchange_(pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    for own, other in pairs:
        own._parameters, other._parameters = other._parameters, own._parameters
        own._buffers, other._buffers = other._buffers, own._buffers


def num_attacked(images: int, share: float) -> int:
    """Return how many images of a batch are attacked, of which BatchNorm needs two of either kind; else none."""
    count = round(share * images)
    return count if _LEAST <= count <= images - _LEAST else 0


def with_attacks(loss_fn: LossFn, norms: AuxiliaryNorms, augment: Augment, preprocess: Preprocess) -> LossFn:
    """Return the loss of Fast AdvProp: the first images of a batch are attacked, the others stay as they are.

    They start at random within the attack's size; the pass whose gradient attacks them also teaches the weights.
    `norms` replace the model's for them. Source: Mei et al. 2022 (arXiv 2204.09838).
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        total = len(batch.labels)
        count = num_attacked(total, augment.adversarial)
        if not count:
            return loss_fn(model, batch)
        clean = loss_fn(model, _rows(batch, slice(count, total))) * (total - count)
        victims = _rows(batch, slice(count))
        with norms.in_place_of(model):
            attacked, taught = _attacked(model, loss_fn, victims, augment, preprocess)
            hard = loss_fn(model, attacked)
        return (clean + count * (_ATTACK_WEIGHT * taught + _ATTACKED_WEIGHT * hard)) / total

    return loss


def _attacked(
    model: nn.Module, loss_fn: LossFn, batch: Batch, augment: Augment, preprocess: Preprocess
) -> tuple[Batch, Tensor]:
    """Return the attacked batch, and the loss of the attack's pass, whose gradient for the weights is kept."""
    std = batch.images.new_tensor(preprocess.std)[:, None, None]
    mean = batch.images.new_tensor(preprocess.mean)[:, None, None]
    size = augment.adversarial_eps / 255 / std
    low, high = -mean / std, (1 - mean) / std
    with torch.enable_grad():
        start = batch.images + (2 * torch.rand_like(batch.images) - 1) * size
        start = torch.minimum(torch.maximum(start, low), high).detach().requires_grad_()
        first = loss_fn(model, replace(batch, images=start))
        weights = [each for each in model.parameters() if each.requires_grad]
        gradient, *others = torch.autograd.grad(first, [start, *weights], allow_unused=True)
    moved = start.detach() + size * gradient.sign()
    moved = torch.minimum(torch.maximum(moved, batch.images - size), batch.images + size)
    moved = torch.minimum(torch.maximum(moved, low), high)
    return replace(batch, images=moved), _kept(first, weights, others)


def _kept(loss: Tensor, weights: list[nn.Parameter], gradients: list[Tensor | None]) -> Tensor:
    """Return a scalar with the value of the loss and, for the weights, its gradient, without a second backward pass."""
    pairs = [(weight, gradient) for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
    linear = sum((weight * gradient).sum() for weight, gradient in pairs)
    return loss.detach() + linear - (linear.detach() if isinstance(linear, Tensor) else linear)


def _rows(batch: Batch, rows: slice) -> Batch:
    mixed = batch.mixed
    if mixed is not None:
        mixed = replace(mixed, partner=mixed.partner[rows], weight=mixed.weight[rows])
    return replace(batch, images=batch.images[rows], labels=batch.labels[rows], mixed=mixed)
