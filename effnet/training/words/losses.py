"""Losses of pairs of an image and a text: symmetric InfoNCE and the sigmoid loss, over the pairs of all processes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.errors import InputError
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.losses import Batch


def info_nce(images: Tensor, texts: Tensor, *, scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss of pairs [pairs, width] of length 1, whose cosines are multiplied by `scale`.

    Source: Radford et al. 2021, "Learning transferable visual models", figure 3.
    """
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def sigmoid_loss(images: Tensor, texts: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
    """Return the sigmoid loss of pairs [pairs, width] of length 1: each of the pairs² is judged on its own.

    Source: Zhai et al. 2023, "Sigmoid loss for language image pre-training", algorithm 1.
    """
    logits = scale * images @ texts.T + bias
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(logits)


Pairs = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A loss of images, texts, scale and bias."""


def loss_called(name: str) -> Pairs:
    """Return the loss `clip` or `siglip`."""
    if name == "clip":
        return lambda images, texts, scale, bias: info_nce(images, texts, scale=scale)
    if name == "siglip":
        return lambda images, texts, scale, bias: sigmoid_loss(images, texts, scale=scale, bias=bias)
    raise InputError(f"the loss of pairs must be clip or siglip; got {name}")


@dataclass(frozen=True, kw_only=True)
class PairLoss:
    """The loss of a training step of Towers, a LossFn: every process's pairs are negatives of all others.

    Each process computes the loss of all pairs, with the gradient of its own ones only: the sum of the processes'
    gradients is that of the whole batch. Micro-batches have the negatives of their own part alone.
    """

    ranks: Ranks = field(default=ALONE)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch whose labels are texts as the text tower takes them."""
        images, texts = model(batch.images), model.text(batch.labels)
        compute, scale, bias = loss_called(model.loss), model.scale, model.bias
        if self.ranks.size == 1:
            return compute(images.float(), texts.float(), scale, bias)
        everyone = self._gather(images.float(), texts.float())
        if everyone is None:
            return compute(images.float(), texts.float(), scale, bias)
        all_images, all_texts = everyone
        share = len(images) / len(all_images)
        # All processes have these two parameters: each gives its share of their gradient.
        loss = compute(all_images, all_texts, _graded(scale, share), _graded(bias, share))
        # The step weights this process's loss by its share of the pairs, but its gradient must count in full.
        return _graded(loss, 1 / share)

    def _gather(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the rows of all processes, own ones with a gradient; None if all computed the same pairs."""
        self.ranks.meet()
        rows = self.ranks.gather((images.detach().cpu(), texts.detach().cpu()))
        if all(torch.equal(rows[0][1], texts) for _, texts in rows):
            return None  # a last batch of too few images is computed whole by each (Ranks.share)
        parts = [[row.to(images.device) for row in found] for found in zip(*rows, strict=True)]
        parts[0][self.ranks.rank], parts[1][self.ranks.rank] = images, texts
        return torch.cat(parts[0]), torch.cat(parts[1])


def _graded(value: Tensor, factor: float) -> Tensor:
    """Return a tensor of the same value, whose gradient is multiplied by `factor`."""
    still = value.detach()
    return still + (value - still) * factor


def pair_loss(ranks: Ranks) -> PairLoss:
    """Return the loss of one of several processes."""
    return PairLoss(ranks=ranks)
