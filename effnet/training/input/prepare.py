"""Preparation of a batch for the loss: augmented, normalised and mixed on the model's device."""

import numpy as np
import torch

from effnet.data.preprocess import Preprocess
from effnet.training.device import normalized, to_pixels
from effnet.training.input.augment import augment_batch
from effnet.training.input.mix import mix
from effnet.training.losses import Batch
from effnet.training.recipe.schema import Recipe


def prepare(
    images: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    device: torch.device,
    step: int,
    first: int = 0,
) -> Batch:
    """Return the batch of uint8 [batch, R, R, C] and labels [batch, ...]; it depends only on seed, `step` and `first`.

    If several processes divide a step, `first` is the place of the first of these images in it. Each process mixes
    its own images.
    """
    seed, augment = recipe.train.seed, recipe.augment
    pixels = to_pixels(images, device)
    if not pixels.is_floating_point():  # kept feature maps were augmented as images
        pixels = augment_batch(pixels, augment, mean=preprocess.mean, seed=seed, step=step, first=first)
    batch = Batch(images=normalized(pixels, preprocess), labels=torch.from_numpy(labels).to(device))
    return mix(batch, augment, seed=seed, step=step, first=first)
