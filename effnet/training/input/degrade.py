"""Degradation of batches as by poor cameras: blur, noise and compression, of the images that are drawn for them.

Each image has its own strength. Images of a data set may be larger or smaller than the network's input, and so noise
of its pixels is finer or coarser there: the grains have one to three pixels of the input.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from effnet.data.corruptions.kinds import compressed
from effnet.training.input.draws import Draws
from effnet.training.recipe.augment import Augment

# The standard deviation of a blur, in pixels of an input of 224, drawn evenly.
_BLURS, _SIDE = (0.1, 2.0), 224
_QUALITIES = (10, 80)
_GRAINS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """What happens to one image: standard deviations of blur (pixels) and noise (levels), a JPEG quality; 0 for none.

    `grain` is the side of a grain of noise, in pixels.
    """

    blur: float = 0.0
    noise: float = 0.0
    grain: int = 1
    quality: int = 0


def draw_degradations(augment: Augment, *, size: int, side: int, draws: Draws, first: int = 0) -> list[Degradation]:
    """Return the degradation of each of `size` images of `side` pixels, from the step's image `first` on."""
    found = []
    for kind, how, noisy, much, grain in draws.rows(size, 5, first=first):
        blurred = kind < augment.blur
        packed = augment.blur <= kind < augment.blur + augment.jpeg
        found.append(
            Degradation(
                blur=(_BLURS[0] + how * (_BLURS[1] - _BLURS[0])) * side / _SIDE if blurred else 0.0,
                noise=255 * augment.noise * much if noisy < augment.noise_share else 0.0,
                grain=1 + int(grain * _GRAINS),
                quality=round(_QUALITIES[0] + how * (_QUALITIES[1] - _QUALITIES[0])) if packed else 0,
            )
        )
    return found


def degraded(image: Tensor, how: Degradation, rng: np.random.Generator) -> Tensor:
    """Return an image, uint8 [channels, R, R], as a camera delivers it: blurred, with noise, then compressed."""
    pixels = image.float()
    if how.blur:
        pixels = _blurred(pixels, how.blur)
    if how.noise:
        pixels = pixels + how.noise * _grains(pixels.shape, how.grain, rng).to(pixels.device)
    found = pixels.round_().clamp_(0, 255).to(torch.uint8)
    if how.quality:
        whole = compressed(np.ascontiguousarray(found.permute(1, 2, 0).cpu().numpy()), how.quality)
        found = torch.from_numpy(whole.copy()).permute(2, 0, 1).to(image.device)
    return found


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Return float [channels, R, R] after a Gaussian blur; the border is replicated."""
    reach = max(1, math.ceil(3 * sigma))
    taps = torch.exp(-(torch.arange(-reach, reach + 1, device=pixels.device) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(pixels)
    padded = functional.pad(pixels[:, None], (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, taps.view(1, 1, 1, -1))
    return functional.conv2d(across, taps.view(1, 1, -1, 1))[:, 0]


def _grains(shape: tuple[int, ...], grain: int, rng: np.random.Generator) -> Tensor:
    """Return noise of standard deviation 1, float [channels, R, R], in squares of `grain` pixels."""
    channels, height, width = shape
    small = (channels, -(-height // grain), -(-width // grain))
    noise = torch.from_numpy(rng.standard_normal(small, dtype=np.float32))
    return noise.repeat_interleave(grain, 1).repeat_interleave(grain, 2)[:, :height, :width]
