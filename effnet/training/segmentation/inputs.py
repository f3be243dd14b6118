"""Images with masks as batches: random crops for training, and whole images or windows for validation.

A mask moves with its image; its pixels are never mixed, only the nearest is taken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.masks.codes import IGNORE
from effnet.data.annotated.masks.labels import header_of
from effnet.data.datasets import Split, loaded_image
from effnet.data.images.decode import Decoding
from effnet.data.preprocess import Preprocess, resample
from effnet.data.view.letterbox import letterbox
from effnet.errors import ImageError
from effnet.tasks.masks.plan import Plan, plan, windows
from effnet.training.input.own import HeldOut
from effnet.training.recipe.schema import Recipe

# Places drawn for a crop until it has a pixel of the foreground.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """The truth of an image, uint8 [height, width], and how the image is shown: in `plan.places` windows."""

    truth: np.ndarray
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pair:
    """An image, uint8 [rows, columns, C], and its mask, uint8 [rows, columns], perhaps reduced.

    `height` and `width` are those of the image as stored.
    """

    image: np.ndarray
    mask: np.ndarray
    height: int
    width: int


def views(split: Split, recipe: Recipe, preprocess: Preprocess, *, limit: int) -> "MaskViews":
    """Return the random views of a split; see `effnet.training.input.own`."""
    return MaskViews(split, recipe, preprocess, limit)


class MaskViews:
    """Random crops of images and their masks; decoded pairs are cached, up to `limit` bytes."""

    def __init__(self, split: Split, recipe: Recipe, preprocess: Preprocess, limit: int) -> None:
        self.split, self.recipe, self.preprocess, self.limit = split, recipe, preprocess, limit
        self.sides = preprocess.size
        self.foreground = foreground_of(split.labels)
        self.kept: dict[int, _Pair] = {}
        self.used = 0

    def view(self, index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a random view, uint8 [height, width, C], and its mask, uint8 [height, width]."""
        pair = self._load(index)
        low, high = np.log([recipe.masks.zoom_out, recipe.masks.zoom_in])
        factor = self._scale(pair.height, pair.width) * float(np.exp(rng.uniform(low, high)))
        inner = max(1, round(pair.height * factor)), max(1, round(pair.width * factor))
        find = self._class_corner if recipe.masks.even_classes else self._corner
        image, mask = self._crop(pair, inner, find(pair, inner, rng), recipe)
        if recipe.augment.flip and rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if recipe.masks.quarter_turns:
            turns = int(rng.integers(4)) if self.sides[0] == self.sides[1] else 2 * int(rng.integers(2))
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
        return np.ascontiguousarray(image), np.ascontiguousarray(mask)

    def stack(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        """Return the masks of a batch, uint8 [batch, height, width]."""
        return np.stack(targets)

    def _scale(self, height: int, width: int) -> float:
        """Return the pixels of the input per pixel of the image, before zooming."""
        box = letterbox(height, width, input_height=self.sides[0], input_width=self.sides[1])
        return self.preprocess.scale or max(box.inner_height / height, box.inner_width / width)

    def _load(self, index: int) -> _Pair:
        """Return a pair no larger than the largest zoom needs; nothing depends on which pairs are cached."""
        pair = self.kept.get(index)
        if pair is not None:
            return pair
        image, mask = read_pair(self.split, index, self.preprocess)
        height, width = mask.shape
        share = self._scale(height, width) * self.recipe.masks.zoom_in
        if share < 1:
            sides = {"height": max(1, round(height * share)), "width": max(1, round(width * share))}
            image = resample(image, interpolation=self.recipe.augment.interpolation, **sides)
            mask = resample(mask[..., None], interpolation="nearest", **sides)[..., 0]
        pair = _Pair(image=image, mask=mask, height=height, width=width)
        if self.used + image.nbytes + mask.nbytes <= self.limit:
            self.kept[index] = pair
            self.used += image.nbytes + mask.nbytes
        return pair

    def _corner(self, pair: _Pair, inner: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Return where the input begins in the resized image, down and across: such that it shows the foreground.

        Along a side on which the image is smaller than the input, it lies anywhere in the input: the corner is not
        above 0.
        """
        room = [side - own for side, own in zip(inner, self.sides, strict=True)]
        corner = 0, 0
        for _ in range(_TRIES):
            corner = tuple(int(rng.integers(min(0, most), max(0, most) + 1)) for most in room)  # type: ignore[assignment]
            part = pair.mask[tuple(self._source(pair, inner, corner))]
            if self.foreground[part].any():
                return corner
        rows, columns = np.nonzero(self.foreground[pair.mask])
        if not len(rows):
            return corner
        place = int(rng.integers(len(rows)))
        centre = rows[place] * inner[0] / pair.mask.shape[0], columns[place] * inner[1] / pair.mask.shape[1]
        middle = [round(at - own / 2) for at, own in zip(centre, self.sides, strict=True)]
        down, across = (min(max(at, min(0, most)), max(0, most)) for at, most in zip(middle, room, strict=True))
        return down, across

    def _class_corner(self, pair: _Pair, inner: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Return where the input begins such that it shows, anywhere, a pixel of a class drawn from the image's."""
        present = np.flatnonzero(np.bincount(pair.mask.ravel(), minlength=256)[:IGNORE])
        if not len(present):
            return self._corner(pair, inner, rng)
        pixels = np.flatnonzero(pair.mask.ravel() == rng.choice(present))
        row, column = divmod(int(pixels[rng.integers(len(pixels))]), pair.mask.shape[1])
        corner = []
        for at, stored, side, own in zip((row, column), pair.mask.shape, inner, self.sides, strict=True):
            begin = round((at + 0.5) * side / stored - rng.random() * own)
            corner.append(min(max(begin, min(0, side - own)), max(0, side - own)))
        return corner[0], corner[1]

    def _source(self, pair: _Pair, inner: tuple[int, int], corner: tuple[int, int]) -> list[slice]:
        """Return the whole pixels of the pair that the input shows."""
        return [
            slice(max(0, int(at * stored / side)), max(1, int(np.ceil(min(side, at + own) * stored / side))))
            for at, own, side, stored in zip(corner, self.sides, inner, pair.mask.shape, strict=True)
        ]

    def _crop(
        self, pair: _Pair, inner: tuple[int, int], corner: tuple[int, int], recipe: Recipe
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of the resized pair from a corner on; what lies outside has the fill colour, and no class."""
        image = np.empty((*self.sides, pair.image.shape[2]), np.uint8)
        image[:] = self.preprocess.fill
        mask = np.full(self.sides, IGNORE, np.uint8)
        low = [max(0, at) for at in corner]
        high = [min(side, at + own) for at, own, side in zip(corner, self.sides, inner, strict=True)]
        height, width = high[0] - low[0], high[1] - low[1]
        down, across = (stored / side for stored, side in zip(pair.mask.shape, inner, strict=True))
        box = (low[1] * across, low[0] * down, high[1] * across, high[0] * down)
        place = tuple(slice(a - at, b - at) for a, b, at in zip(low, high, corner, strict=True))
        kind = recipe.augment.interpolation
        image[place] = resample(pair.image, width=width, height=height, interpolation=kind, box=box)
        nearest = resample(pair.mask[..., None], width=width, height=height, interpolation="nearest", box=box)
        mask[place] = nearest[..., 0]
        return image, mask


def held_out(split: Split, recipe: Recipe, preprocess: Preprocess, *, batch_size: int, limit: int) -> HeldOut:
    """Return a function that gives (windows uint8 [n, height, width, C], what they show) of a split, image by image.

    Windows of several small images are given together, up to `batch_size`; unreadable images are left out.
    """
    height, width = preprocess.size

    def one(index: int) -> tuple[np.ndarray, Shown]:
        image, truth = read_pair(split, index, preprocess)
        shown = plan(*truth.shape, input_height=height, input_width=width, scale=preprocess.scale)
        cut = windows(image, shown, fill=preprocess.fill, interpolation=preprocess.interpolation)
        return cut, Shown(truth=truth, plan=shown)

    def stream() -> Iterator[tuple[np.ndarray, tuple[Shown, ...]]]:
        images: list[np.ndarray] = []
        shown: list[Shown] = []
        for index in range(len(split)):
            try:
                cut, own = one(index)
            except ImageError:
                continue
            if images and sum(map(len, images)) + len(cut) > batch_size:
                yield np.concatenate(images), tuple(shown)
                images, shown = [], []
            images.append(cut)
            shown.append(own)
        if images:
            yield np.concatenate(images), tuple(shown)

    kept: list[tuple[np.ndarray, tuple[Shown, ...]]] = []
    used = 0
    for batch in stream():
        used += batch[0].nbytes + sum(own.truth.nbytes for own in batch[1])
        if used > limit:
            return stream
        kept.append(batch)
    return lambda: kept


def read_pair(split: Split, index: int, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """Return image `index`, uint8 [height, width, C], and its mask, uint8 [height, width], both upright.

    Raises ImageError if the image cannot be decoded, DataError if its mask cannot be used.
    """
    decoding = Decoding(channels=preprocess.channels, value_range=preprocess.value_range)
    with loaded_image(split, index, decoding) as found:
        image = np.array(found)
    return image, split.labels[index].read(header_of(split, index, image))


def foreground_of(labels: np.ndarray) -> np.ndarray:
    """Return which values of masks are foreground, bool [256]: all classes but the one with the most pixels.

    `labels` are MaskLabels, [images].
    """
    counts = np.sum([label.pixels[:-1] for label in labels], axis=0)
    found = np.zeros(256, bool)
    found[: len(counts)] = True
    found[int(counts.argmax())] = False
    return found
