"""The losses of detectors: quality focal loss of the point head, and those of EfficientDet."""

import torch
from torch import Tensor
from torch.nn import functional


def quality_focal_loss(logits: Tensor, quality: Tensor, *, beta: float = 2.0) -> Tensor:
    """Return |quality - p|^beta times the cross-entropy of p, the sigmoid of the logits, and quality, elementwise.

    Source: Li et al. 2020, "Generalized focal loss", equation 3.
    """
    away = (quality - logits.sigmoid()).abs()
    return away.pow(beta) * functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 1.5) -> Tensor:
    """Return the focal loss of sigmoids for targets of 0 and 1, elementwise.

    Source: Lin et al. 2017, "Focal loss for dense object detection", equation 5; EfficientDet's alpha and gamma.
    """
    cross = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    wrong = targets * (1 - p) + (1 - targets) * p
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    return weight * wrong.pow(gamma) * cross


def huber_loss(values: Tensor, targets: Tensor, *, delta: float = 0.1) -> Tensor:
    """Return half the square of small differences, and delta x (difference - delta / 2) of those above delta."""
    return torch.nn.functional.huber_loss(values, targets, reduction="none", delta=delta)
