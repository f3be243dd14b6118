"""The kinds of corruption, each at five severities.

Source of all parameters but those of darkness and rotation: Hendrycks & Dietterich 2019 (arXiv 1903.12261),
hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, for images of 224 pixels. Of an image of another size,
lengths in pixels grow with its shorter side. Below 224 pixels noise, compression and pixelation are milder as well, by
the root of the side, near the parameters of CIFAR-10-C (make_cifar_c.py): a pixel is a larger part of what they show.
"""

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from effnet.data.corruptions.blurs import convolved, disk, moved
from effnet.data.view.resample import from_images, to_images
from effnet.errors import DataError, InputError, nearest

T = TypeVar("T")

SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 224
# Steps of the smoothing of disks whose sizes are not the published ones.
_SMOOTHING = 0.5

_GAUSSIAN = (0.08, 0.12, 0.18, 0.26, 0.38)
_PHOTONS = (60, 25, 12, 5, 3)
_DISKS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_MOTIONS = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
_QUALITIES = (25, 18, 15, 10, 7)
_BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRASTS = (0.4, 0.3, 0.2, 0.1, 0.05)
_KEPT_SIDES = (0.6, 0.5, 0.4, 0.3, 0.25)
# Ours: the share of the light that is left, 0.6 to 3.3 stops less, and degrees of a camera held askew.
_LIGHTS = (0.65, 0.5, 0.35, 0.2, 0.1)
_DEGREES = (5.0, 10.0, 15.0, 20.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shot:
    """One corruption: the `severity` from 1, the size of the image relative to 224 pixels, and the random numbers."""

    severity: int
    size: float
    rng: np.random.Generator

    @property
    def strength(self) -> float:
        """The strength of noise and compression: less in small images."""
        return math.sqrt(min(1.0, self.size))

    def of(self, values: tuple[T, ...]) -> T:
        """Return the parameter of the severity."""
        return values[self.severity - 1]


def corrupt(image: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """Return a decoded image, uint8 [height, width, channels], after the corruption `kind` at `severity` 1 to 5.

    Random numbers depend on the pixels and the kind alone: every severity has the same noise, scaled, and any file with
    these pixels gets the same corruption. Raises InputError for an unknown kind or severity, DataError for no image.
    """
    check(kind, severity)
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise DataError(f"an image must be uint8 [height, width, channels], received {image.dtype} {list(image.shape)}")
    seed = [zlib.crc32(kind.encode()), zlib.crc32(np.ascontiguousarray(image).tobytes()), *image.shape]
    shot = _Shot(severity=severity, size=min(image.shape[:2]) / _SIDE, rng=np.random.default_rng(seed))
    return KINDS[kind](image, shot)


def check(kind: str, severity: int) -> None:
    """Raise InputError for an unknown kind or severity."""
    if kind not in KINDS:
        raise InputError(f"a corruption must be one of {', '.join(KINDS)}; got {kind!r}{nearest(kind, KINDS)}")
    if severity not in SEVERITIES or isinstance(severity, bool):
        raise InputError(f"the severity of a corruption must be a whole number from 1 to 5; got {severity!r}")


def _pixels(values: np.ndarray) -> np.ndarray:
    """Return values in 0..1 as uint8."""
    return (values * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _gaussian_noise(image: np.ndarray, shot: _Shot) -> np.ndarray:
    return _pixels(image / 255 + shot.strength * shot.of(_GAUSSIAN) * shot.rng.standard_normal(image.shape))


def _shot_noise(image: np.ndarray, shot: _Shot) -> np.ndarray:
    photons = shot.of(_PHOTONS) / shot.strength**2
    return _pixels(shot.rng.poisson(image / 255 * photons) / photons)


def _defocus_blur(image: np.ndarray, shot: _Shot) -> np.ndarray:
    radius, smoothing = shot.of(_DISKS)
    exact = shot.size == 1
    kernel = disk(radius * shot.size, smoothing=smoothing if exact else _SMOOTHING, exact=exact)
    return _pixels(convolved(image / 255, kernel))


def _motion_blur(image: np.ndarray, shot: _Shot) -> np.ndarray:
    radius, sigma = shot.of(_MOTIONS)
    degrees = shot.rng.uniform(-45, 45)
    reach = max(1, round(radius * shot.size))
    return _pixels(moved(image / 255, radius=reach, sigma=sigma * shot.size, degrees=degrees))


def _jpeg(image: np.ndarray, shot: _Shot) -> np.ndarray:
    quality = round(100 - (100 - shot.of(_QUALITIES)) * shot.strength)
    return compressed(image, quality)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Return an image, uint8 [height, width, channels], as a JPEG file of that quality shows it.

    Images of other than three channels are compressed channel by channel.
    """
    planes = [image] if image.shape[2] == 3 else list(image.transpose(2, 0, 1))
    found = []
    for plane in planes:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(file, "JPEG", quality=quality)
        with Image.open(file) as back:
            found.append(np.asarray(back))
    return found[0] if image.shape[2] == 3 else np.stack(found, axis=2)


def _brightness(image: np.ndarray, shot: _Shot) -> np.ndarray:
    """Add to the value of HSV: hue and saturation stay, so all channels grow by one factor."""
    values = image / 255
    before = values.max(2, keepdims=True)
    after = np.minimum(before + shot.of(_BRIGHTER), 1)
    return _pixels(np.where(before > 0, values * after / np.maximum(before, 1e-9), after))


def _darkness(image: np.ndarray, shot: _Shot) -> np.ndarray:
    return _pixels(image / 255 * shot.of(_LIGHTS))


def _contrast(image: np.ndarray, shot: _Shot) -> np.ndarray:
    values = image / 255
    mean = values.mean((0, 1), keepdims=True)
    return _pixels((values - mean) * shot.of(_CONTRASTS) + mean)


def _rotation(image: np.ndarray, shot: _Shot) -> np.ndarray:
    """Turn the image about its centre; its border is mirrored, so that no corner is empty."""
    degrees = shot.of(_DEGREES) * (1 if shot.rng.random() < 0.5 else -1)
    height, width = image.shape[:2]
    margin = math.ceil(math.hypot(height, width) / 2 - min(height, width) / 2) + 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    turned = from_images([each.rotate(degrees, Image.Resampling.BILINEAR) for each in to_images(padded)])
    return np.ascontiguousarray(turned[margin : margin + height, margin : margin + width])


def _pixelation(image: np.ndarray, shot: _Shot) -> np.ndarray:
    height, width = image.shape[:2]
    kept = shot.of(_KEPT_SIDES)
    kept = kept / shot.size if shot.size > 1 else kept**shot.strength
    small = max(1, int(width * kept)), max(1, int(height * kept))
    coarse = [each.resize(small, Image.Resampling.BOX) for each in to_images(image)]
    return from_images([each.resize((width, height), Image.Resampling.NEAREST) for each in coarse])


KINDS: dict[str, Callable[[np.ndarray, _Shot], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "jpeg": _jpeg,
    "brightness": _brightness,
    "darkness": _darkness,
    "contrast": _contrast,
    "rotation": _rotation,
    "pixelation": _pixelation,
}
"""The kinds of corruption by name, from decoded image and parameters to corrupted image."""
