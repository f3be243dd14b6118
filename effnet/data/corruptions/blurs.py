"""Blurs of float images [height, width, channels] in 0..1: a lens out of focus, and a moving camera."""

import math

import numpy as np

# The kernel of a disk of at most this radius has this reach. Source: hendrycks/robustness, make_imagenet_c.py, disk.
_REACH = 8
# Samples of a pixel along each side, for disks of other sizes than the published ones.
_SAMPLES = 8


def disk(radius: float, *, smoothing: float, exact: bool) -> np.ndarray:
    """Return the kernel [2 reach + 1, 2 reach + 1] of a lens out of focus, of sum 1: a disk, smoothed by a Gaussian.

    An `exact` one consists of whole pixels, as the published ones do; others have pixels that are covered in part.

    Source: hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, disk.
    """
    reach = _REACH if radius <= _REACH else math.ceil(radius)
    if exact:
        across, down = np.meshgrid(*[np.arange(-reach, reach + 1)] * 2)
        inside = (across**2 + down**2 <= radius**2).astype(np.float64)
    else:
        fine = (np.arange((2 * reach + 1) * _SAMPLES) + 0.5) / _SAMPLES - reach - 0.5
        across, down = np.meshgrid(fine, fine)
        cells = (across**2 + down**2 <= radius**2).reshape(2 * reach + 1, _SAMPLES, 2 * reach + 1, _SAMPLES)
        inside = cells.mean((1, 3))
        if not inside.any():
            inside[reach, reach] = 1.0
    return _smoothed(inside / inside.sum(), sigma=smoothing, reach=1 if radius <= _REACH else 2)


def _smoothed(kernel: np.ndarray, *, sigma: float, reach: int) -> np.ndarray:
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    for axis in (0, 1):
        padded = np.pad(kernel, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
        side = kernel.shape[axis]
        kernel = sum(tap * padded.take(range(at, at + side), axis) for at, tap in enumerate(taps))
    return kernel


def convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the image [height, width, channels] convolved with a symmetric kernel, its border mirrored."""
    reach = len(kernel) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    size = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, size)[..., None]
    whole = np.fft.irfft2(spectrum, size, axes=(0, 1))
    return whole[2 * reach : 2 * reach + image.shape[0], 2 * reach : 2 * reach + image.shape[1]]


def moved(image: np.ndarray, *, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Return the image as a camera sees it that moves along a line: half a Gaussian of 2 `radius` + 1 pixels.

    The border is replicated. Source: ImageMagick's MotionBlurImage, which hendrycks/robustness calls.
    """
    taps = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    height, width = image.shape[:2]
    down, across = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    steps = [(math.ceil(number * down - 0.5), math.ceil(number * across - 0.5), tap) for number, tap in enumerate(taps)]
    steps = [step for step in steps if abs(step[0]) < height and abs(step[1]) < width]
    reach = max(max(abs(y), abs(x)) for y, x, _ in steps)
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    found = np.zeros_like(image)
    for y, x, tap in steps:
        found += tap * padded[reach + y : reach + y + height, reach + x : reach + x + width]
    return found
