"""Images with objects as batches: random views for training, and whole images for validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.objects import (
    BOTTOM,
    COLUMNS,
    HEIGHT,
    LEFT,
    WIDTH,
    present,
    to_annotated,
)
from effnet.data.annotated.record import Annotated
from effnet.data.datasets import Split, loaded_image
from effnet.data.images.decode import Decoding
from effnet.data.preprocess import Preprocess, resample
from effnet.data.view.letterbox import Letterbox, fit_image
from effnet.errors import ImageError
from effnet.training.detection.views import Views, padded, random_objects
from effnet.training.input.own import HeldOut
from effnet.training.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """The objects of an image, and where it lies in the input."""

    truth: Annotated
    place: Letterbox
    targets: np.ndarray


def views(split: Split, recipe: Recipe, preprocess: Preprocess, *, limit: int) -> "ObjectViews":
    """Return the random views of a split; see `effnet.training.input.own`."""
    return ObjectViews(split, recipe, preprocess, limit)


class ObjectViews:
    """Random views of images and their objects; decoded images are cached, up to `limit` bytes."""

    def __init__(self, split: Split, recipe: Recipe, preprocess: Preprocess, limit: int) -> None:
        self.split, self.preprocess, self.limit = split, preprocess, limit
        self.height, self.width = preprocess.size
        self.most = recipe.boxes.zoom_in
        self.kept: dict[int, np.ndarray] = {}
        self.used = 0

    def view(self, index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a random view, uint8 [height, width, C], and its objects, [m, COLUMNS] in pixels of the view."""
        plan = Views(
            height=self.height,
            width=self.width,
            fill=self.preprocess.fill,
            scale=(recipe.boxes.zoom_out, recipe.boxes.zoom_in),
            flip=recipe.augment.flip,
            mosaic=recipe.boxes.mosaic,
            interpolation=recipe.augment.interpolation,
        )
        return random_objects(plan, index, self._load, count=len(self.split), rng=rng)

    def empty(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a view of nothing, for an image that cannot be read."""
        image = np.empty((self.height, self.width, self.preprocess.channels), np.uint8)
        image[:] = self.preprocess.fill
        return image, np.empty((0, COLUMNS))

    def stack(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        """Return the objects of a batch, float32 [batch, m, COLUMNS]."""
        return padded(targets)

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image no larger than the largest zoom needs, and its objects in pixels of the image as stored."""
        image = self.kept.get(index)
        if image is None:
            image = self._shrunk(decoded(self.split, index, self.preprocess))
            if self.used + image.nbytes <= self.limit:
                self.kept[index] = image
                self.used += image.nbytes
        return image, self.split.labels[index]

    def _shrunk(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        share = self.most * min(self.height / height, self.width / width)
        if share >= 1:
            return image
        sides = {"height": max(1, round(height * share)), "width": max(1, round(width * share))}
        return resample(image, interpolation="bicubic", **sides)


def held_out(split: Split, recipe: Recipe, preprocess: Preprocess, *, batch_size: int, limit: int) -> HeldOut:
    """Return a function that gives (images uint8 [batch, height, width, C], what they show) of a split, in order.

    Unreadable images are left out.
    """
    height, width = preprocess.size

    def one(index: int) -> tuple[np.ndarray, Shown]:
        image = decoded(split, index, preprocess)
        canvas, place = fit_image(
            image, input_height=height, input_width=width, fill=preprocess.fill, interpolation=preprocess.interpolation
        )
        return canvas, shown_at(split.labels[index], place)

    def stream() -> Iterator[tuple[np.ndarray, tuple[Shown, ...]]]:
        found: list[tuple[np.ndarray, Shown]] = []
        for index in range(len(split)):
            try:
                found.append(one(index))
            except ImageError:
                continue
            if len(found) == batch_size:
                yield _batch(found)
                found = []
        if found:
            yield _batch(found)

    if len(split) * height * width * preprocess.channels > limit:
        return stream
    kept = list(stream())
    return lambda: kept


def _batch(found: Sequence[tuple[np.ndarray, Shown]]) -> tuple[np.ndarray, tuple[Shown, ...]]:
    images, shown = zip(*found, strict=True)
    return np.stack(images), shown


def shown_at(target: np.ndarray, place: Letterbox) -> Shown:
    """Return the objects of a target [m, COLUMNS] of an image that lies in the input at `place`."""
    truth = to_annotated(target, size=(place.width, place.height))
    rows = present(target).copy()
    if len(rows):
        inner = np.array([place.inner_width, place.inner_height])
        rows[:, LEFT : BOTTOM + 1] *= np.tile(inner / rows[0, [WIDTH, HEIGHT]], 2)
    return Shown(truth=truth, place=place, targets=rows)


def decoded(split: Split, index: int, preprocess: Preprocess) -> np.ndarray:
    """Return image `index` of a split, uint8 [height, width, C], upright; raise ImageError if it cannot be read."""
    decoding = Decoding(channels=preprocess.channels, value_range=preprocess.value_range)
    with loaded_image(split, index, decoding) as found:
        return np.array(found)
