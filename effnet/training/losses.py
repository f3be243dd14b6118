"""Losses: the one place where training is extended."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from effnet.training.recipe import LossName


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
        return labels_loss(model(batch.images), batch, name="cross_entropy", smoothing=label_smoothing)

    return loss


def binary_cross_entropy(label_smoothing: float = 0.0) -> LossFn:
    """Returns the loss that asks of each class on its own whether it is there, the mean over classes and pictures.

    Source: Wightman et al. 2021, section 2.2, as timm.loss.BinaryCrossEntropy with its defaults.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return labels_loss(model(batch.images), batch, name="bce", smoothing=label_smoothing)

    return loss


def labels_loss(logits: Tensor, batch: Batch, *, name: LossName, smoothing: float) -> Tensor:
    """Returns the loss `name` of logits [batch, classes] against what the pictures show, a scalar."""
    if name == "cross_entropy" and batch.mixed is None:
        return functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
    targets = soft_targets(batch, num_classes=logits.shape[1], smoothing=smoothing)
    if name == "cross_entropy":
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits.float(), targets)
