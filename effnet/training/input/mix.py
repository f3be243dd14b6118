"""Mixup and CutMix: every image of a batch is mixed with the next one, and so are their labels."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from effnet.training.input.draws import Draws
from effnet.training.losses import Batch, Mixed
from effnet.training.recipe.schema import Augment


def mix(batch: Batch, augment: Augment, *, seed: int, step: int, first: int = 0) -> Batch:
    """Return the batch with its images mixed, or the batch unchanged if `augment` mixes nothing.

    Every image has a weight or a box of its own, and the next of the batch as its partner; a batch of one stays
    unchanged. If mixup and cutmix are both on, a step uses one or the other for the whole batch. The same seed, step
    and place `first` of the first image in the step give the same mix.

    Source: mixup, Zhang et al. 2018 (1710.09412), eq. 1; cutmix, Yun et al. 2019 (1905.04899), eqs. 1 and 2.
    """
    size = len(batch.labels)
    if size < 2 or not (augment.mixup or augment.cutmix):
        return batch
    draws = Draws(seed=seed, step=step, purpose="mix")
    cut = draws.once() < 0.5 if augment.mixup and augment.cutmix else augment.cutmix > 0
    alpha = augment.cutmix if cut else augment.mixup
    weight = draws.generator(2, first).beta(alpha, alpha, size).astype(np.float32)
    partner = batch.images.roll(-1, 0)
    if cut:
        images, weight = _cut(batch.images, partner, weight, draws.rows(size, 2, first=first))
    else:
        own = torch.from_numpy(weight).to(batch.images)[:, None, None, None]
        images = partner.lerp(batch.images, own)
    mixed = Mixed(partner=batch.labels.roll(-1, 0), weight=torch.from_numpy(weight).to(batch.images.device))
    return dataclasses.replace(batch, images=images, mixed=mixed)


def _cut(images: Tensor, partner: Tensor, weight: np.ndarray, middles: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Return images with a box taken from their partners, and the share of each image that is left.

    A box of the area 1 - `weight` has its centre anywhere in the image and is clipped at the edges.
    """
    height, width = images.shape[-2:]
    kept = np.ones(len(weight))
    inside = torch.ones(len(weight), 1, height, width, dtype=torch.bool, device=images.device)
    for axis, (side, middle) in enumerate(zip((height, width), middles.T, strict=True)):
        length = np.floor(np.sqrt(1 - weight) * side).astype(np.int64)
        place = np.floor(middle * side).astype(np.int64)
        first = np.clip(place - length // 2, 0, side)
        last = np.clip(place + (length + 1) // 2, 0, side)
        kept *= (last - first) / side
        low, high = (torch.from_numpy(edge).to(images.device)[:, None] for edge in (first, last))
        at = torch.arange(side, device=images.device)
        within = (at >= low) & (at < high)
        inside &= within[:, None, :, None] if axis == 0 else within[:, None, None, :]
    return torch.where(inside, partner, images), (1 - kept).astype(np.float32)
