"""Losses: the one place where training is extended."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """What was mixed into each picture of a batch: the label of its `partner` and the own label's `weight`, [batch]."""

    partner: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Normalised pictures [batch, channels, height, width] and their labels, int64 [batch].

    Where pictures were mixed, `labels` are those of the pictures that others were mixed into.
    """

    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None


LossFn = Callable[[nn.Module, Batch], Tensor]


def soft_targets(batch: Batch, *, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Returns what a batch's pictures show, float32 [batch, num_classes], each row of sum 1.

    Mixed pictures show two classes by weight; `smoothing` of every row is shared out over all classes.

    Source: Szegedy et al. 2016, section 7 (smoothing); Zhang et al. 2018, eq. 1 (mixing).
    """
    shown = functional.one_hot(batch.labels, num_classes).float()
    if batch.mixed is not None:
        partner = functional.one_hot(batch.mixed.partner, num_classes).float()
        shown = partner.lerp_(shown, batch.mixed.weight.to(shown.dtype)[:, None])
    return shown.mul_(1 - smoothing).add_(smoothing / num_classes)


def cross_entropy(label_smoothing: float = 0.0) -> LossFn:
    """Returns the usual loss: softmax cross-entropy with smoothed labels."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.images)
        if batch.mixed is None:
            return functional.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
        return functional.cross_entropy(
            logits, soft_targets(batch, num_classes=logits.shape[1], smoothing=label_smoothing)
        )

    return loss
