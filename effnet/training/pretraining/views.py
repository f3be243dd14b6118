"""Two random views of each image: crops, colours, grey and blur, as a function of seed, epoch and image alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess
from effnet.data.view.crop import decoded, random_part, random_view
from effnet.errors import ImageError
from effnet.training.input.batches import cached_loader
from effnet.training.input.own import HeldOut
from effnet.training.input.resize import resize_square
from effnet.training.recipe.schema import Recipe

# Chen et al. 2020, appendix A: colours change in 80 % of the views by 0.8 of the strength, hues by 0.2 of it; a fifth
# is grey, half is blurred.
_COLOURED, _GREY, _BLURRED = 0.8, 0.2, 0.5
_FACTORS, _HUE, _SIGMA = 0.8, 0.2, (0.1, 2.0)
# Brightness in YIQ, where a rotation of the other two axes changes the hue.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = 3
_SHRINK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How views differ: crops of at least `min_area`, `flip`, the `strength` of colours (0: none), and `blur`."""

    min_area: float
    flip: bool
    strength: float
    blur: bool

    def distorted(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an image, uint8 [side, side, channels], in other colours, perhaps grey, perhaps blurred."""
        if self.strength and rng.random() < _COLOURED:
            image = _coloured(image, self.strength, rng)
        if self.strength and image.shape[2] == _RGB and rng.random() < _GREY:
            image = np.repeat(np.rint(image @ _YIQ[0]).astype(np.uint8)[..., None], _RGB, axis=2)
        if self.blur and rng.random() < _BLURRED:
            image = _blurred(image, rng.uniform(*_SIGMA))
        return image


def _coloured(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return an image with other brightness and contrast and, in RGB, other saturation and hue."""
    brightness, contrast, saturation = 1 + _FACTORS * strength * rng.uniform(-1, 1, 3)
    angle = 2 * np.pi * _HUE * strength * rng.uniform(-1, 1)
    values = image.astype(np.float32) * max(0.0, brightness)
    mean = values.mean()
    values = mean + max(0.0, contrast) * (values - mean)
    if image.shape[2] == _RGB:
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        turn[1:] *= max(0.0, saturation)
        values = values @ (np.linalg.inv(_YIQ) @ turn @ _YIQ).T.astype(np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    filtered = ImageFilter.GaussianBlur(sigma)
    planes = [Image.fromarray(np.ascontiguousarray(plane)).filter(filtered) for plane in np.moveaxis(image, 2, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


class Pairs:
    """The pairs of views of the images of a split."""

    def __init__(self, split: Split, preprocess: Preprocess, look: Look, *, limit: int) -> None:
        self.load, self.preprocess, self.look = cached_loader(split, preprocess, limit=limit), preprocess, look

    def view(self, index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return two views of image `index`, uint8 [side, side, channels] each."""
        return self._one(index, recipe, rng), self._one(index, recipe, rng)

    def stack(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        """Return second views as one array."""
        return np.stack(targets)

    def _one(self, index: int, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
        raw, preprocess, look = self.load(index), self.preprocess, self.look
        scale, interpolation = (look.min_area, 1.0), recipe.augment.interpolation
        least, mirror = _SHRINK * preprocess.resolution, look.flip and rng.random() < 0.5
        if preprocess.mode == "pad":
            whole = decoded(raw, channels=preprocess.channels, least=least, longer=True)
            image = random_view(whole, preprocess, rng=rng, scale=scale, interpolation=interpolation)
            image = image[:, ::-1] if mirror else image
        else:
            part = random_part(
                raw, least=least, rng=rng, channels=preprocess.channels, scale=scale, mode=preprocess.mode
            )
            side = preprocess.resolution
            image = resize_square(part, resolution=side, interpolation=interpolation, mirror=mirror)
        return look.distorted(image, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairInput:
    """Makes the pairs of a run, see effnet.training.input.own."""

    look: Look

    def views(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, limit: int) -> Pairs:
        """Return the pairs of views of a split."""
        return Pairs(split, preprocess, self.look, limit=limit)

    def held_out(self, split: Split, recipe: Recipe, preprocess: Preprocess, *, batch_size: int, limit: int) -> HeldOut:
        """Return a function that gives batches of pairs, the same each time; unreadable images are left out."""
        pairs = Pairs(split, preprocess, self.look, limit=limit)

        def batches() -> Iterable[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(split), batch_size):
                found = []
                for index in range(start, min(len(split), start + batch_size)):
                    try:
                        found.append(pairs.view(index, recipe, np.random.default_rng([recipe.train.seed, index])))
                    except ImageError:
                        continue
                if len(found) > 1:
                    first, second = zip(*found, strict=True)
                    yield np.stack(first), np.stack(second)

        return batches
