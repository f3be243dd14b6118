"""The losses of a segmenter: cross-entropy and Dice over the known pixels."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.annotated.masks.codes import IGNORE
from effnet.training.losses import Batch, LossFn

_MASK = "mask"
# A class that is neither true nor predicted anywhere must not divide by zero.
_LEAST = 1e-6


def mask_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits [batch, classes, h, w] of a segmenter, whose outputs have names, or of a module of one."""
    found = model(images)
    logits: Tensor = found[_MASK] if isinstance(found, Mapping) else found
    return logits


def segmentation_loss(*, dice: float = 1.0, weights: Tensor | None = None, smoothing: float = 0.0) -> LossFn:
    """Return cross-entropy plus `dice` times the Dice loss, between logits and masks, uint8 [batch, H, W].

    The logits are enlarged to the masks' size: bilinear, half-pixel centres, as the answer is; reducing the masks
    instead would lose thin parts, and teach edges that are not where they are drawn. `weights` [classes] and
    `smoothing` are those of cross-entropy.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        masks = batch.labels.long()
        logits = mask_logits(model, batch.images).float()
        logits = functional.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
        found = pixel_loss(logits, masks, weights=weights, smoothing=smoothing)
        return found + dice * dice_loss(logits, masks) if dice else found

    return loss


def pixel_loss(logits: Tensor, masks: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of the known pixels, 0 if there is none.

    `logits` are [batch, classes, H, W], `masks` int64 [batch, H, W], IGNORE where unknown. With `weights` it is the
    weighted mean, as torch's.
    """
    if not (masks != IGNORE).any():
        return logits.sum() * 0
    return functional.cross_entropy(logits, masks, weight=weights, ignore_index=IGNORE, label_smoothing=smoothing)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean, over the classes that are true somewhere in the batch, of 1 - 2 |p t| / (|p| + |t|).

    p is the softmax of the logits, t the truth, and sums go over the known pixels of the whole batch. 0 if no pixel is
    known. Source: Milletari et al. 2016 (V-Net), eq. 3, without squares, as smp's DiceLoss.
    """
    known = masks != IGNORE
    p = functional.softmax(logits, dim=1) * known[:, None]
    t = functional.one_hot(masks.where(known, 0), logits.shape[1]).permute(0, 3, 1, 2) * known[:, None]
    true = t.sum((0, 2, 3))
    dice = 2 * (p * t).sum((0, 2, 3)) / (p.sum((0, 2, 3)) + true).clamp_min(_LEAST)
    present = (true > 0).to(dice.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


def pixel_weights(counts: np.ndarray, *, strength: float) -> np.ndarray:
    """Return weights in proportion to frequency^-strength, whose mean over all pixels is 1: float64 [classes].

    `counts` are the pixels of each class; one without pixels has the weight 1. At strength 0.5 it is 1 / sqrt of the
    frequency.
    """
    shares = counts / max(1, counts.sum())
    present = shares > 0
    weights = np.ones(len(counts))
    weights[present] = shares[present] ** -strength
    weights[present] /= (weights * shares)[present].sum()
    return weights


def as_tensor(weights: np.ndarray, device: torch.device | None) -> Tensor:
    """Return weights as float32 on a device."""
    return torch.from_numpy(weights.astype(np.float32)).to(device or "cpu")
