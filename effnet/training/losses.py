"""Losses: the extension point of training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.training.recipe.balance import class_weights, logit_offset
from effnet.training.recipe.schema import LossName, Recipe

_LEAST_REST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """The mix of each image of a batch: the label of its `partner`, and the `weight` of its own label, [batch]."""

    partner: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Normalised images [batch, channels, height, width] and their labels: classes, int64 [batch], or other targets.

    If images were mixed, `labels` are those of the images into which others were mixed.
    """

    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None


LossFn = Callable[[nn.Module, Batch], Tensor]


def soft_targets(batch: Batch, *, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Return the soft targets of a batch, float32 [batch, num_classes], each row of sum 1.

    Mixed images have two classes by weight; `smoothing` of every row is spread over all classes.

    Source: Szegedy et al. 2016, section 7 (smoothing); Zhang et al. 2018, eq. 1 (mixing).
    """
    shown = functional.one_hot(batch.labels, num_classes).float()
    if batch.mixed is not None:
        partner = functional.one_hot(batch.mixed.partner, num_classes).float()
        shown = partner.lerp_(shown, batch.mixed.weight.to(shown.dtype)[:, None])
    return shown.mul_(1 - smoothing).add_(smoothing / num_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Class-dependent changes of softmax cross-entropy; none by default.

    `offset` [classes] is added to the logits in training only, so that the network learns logits without it; `weights`
    [classes] are factors, of mean 1 over the images; `gamma` is that of the focal loss.
    """

    offset: Tensor | None = None
    weights: Tensor | None = None
    gamma: float = 0.0


ALIKE = Terms()


def make_terms(recipe: Recipe, labels: np.ndarray, *, num_classes: int, device: torch.device | None = None) -> Terms:
    """Return the terms of a recipe for training images of int64 `labels` [images].

    Raises DataError if classes are to be balanced and one has no image.
    """
    balance, gamma = recipe.balance, recipe.loss.focal_gamma
    common: Any = {"num_classes": num_classes, "strength": balance.strength, "smoothing": recipe.loss.label_smoothing}
    if balance.method == "adjust":
        offset = logit_offset(labels, **common)
        return Terms(offset=torch.tensor(offset, dtype=torch.float32, device=device), gamma=gamma)
    if balance.method == "weight":
        weights = class_weights(labels, **common)
        return Terms(weights=torch.tensor(weights, dtype=torch.float32, device=device), gamma=gamma)
    return Terms(gamma=gamma)


def cross_entropy(label_smoothing: float = 0.0, terms: Terms = ALIKE) -> LossFn:
    """Return softmax cross-entropy with label smoothing and class-dependent `terms`."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return labels_loss(model(batch.images), batch, name="cross_entropy", smoothing=label_smoothing, terms=terms)

    return loss


def binary_cross_entropy(label_smoothing: float = 0.0) -> LossFn:
    """Return binary cross-entropy of each class on its own, the mean over classes and images.

    Source: Wightman et al. 2021, section 2.2, as timm.loss.BinaryCrossEntropy with its defaults.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return labels_loss(model(batch.images), batch, name="bce", smoothing=label_smoothing)

    return loss


def labels_loss(logits: Tensor, batch: Batch, *, name: LossName, smoothing: float, terms: Terms = ALIKE) -> Tensor:
    """Return the loss `name` of logits [batch, classes] against the targets of the batch, a scalar.

    `terms` are those of cross_entropy.
    """
    if name == "bce":
        targets = soft_targets(batch, num_classes=logits.shape[1], smoothing=smoothing)
        return functional.binary_cross_entropy_with_logits(logits.float(), targets)
    if terms.offset is not None:
        logits = logits + terms.offset
    if batch.mixed is None and terms.weights is None and not terms.gamma:
        return functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
    targets = soft_targets(batch, num_classes=logits.shape[1], smoothing=smoothing)
    if terms.gamma:
        return focal_loss(logits, targets, gamma=terms.gamma, weights=terms.weights)
    # For soft targets torch takes the mean over images, not over weights: batches may be split at will.
    return functional.cross_entropy(logits, targets, weight=terms.weights)


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Return the mean over images of -sum_c w_c t_c (1 - p_c)^gamma log p_c, p the softmax of the logits.

    Logits and soft `targets` are [batch, classes], `weights` [classes]. Source: Lin et al. 2017, "Focal loss for dense
    object detection", eq. 4 and 5, there for sigmoids.
    """
    log_p = functional.log_softmax(logits.float(), dim=1)
    # For p = 1 the rest is 0, where a power below 1 has no finite slope.
    rest = -torch.expm1(log_p).clamp_max(-_LEAST_REST)
    terms = targets * rest.pow(gamma) * log_p
    return -(terms if weights is None else terms * weights).sum(1).mean()
