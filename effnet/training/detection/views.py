"""Random views of images with objects: flips, scales, crops that keep an object, and mosaics; the boxes move along.

A view's targets are those of effnet.data.annotated.objects with their boxes in pixels of the view.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.objects import (
    BOTTOM,
    CLASS,
    COLUMNS,
    CROWD,
    HEIGHT,
    LEFT,
    RIGHT,
    STATE,
    TOP,
    WIDTH,
    present,
)
from effnet.data.preprocess import Interpolation, resample
from effnet.data.view.letterbox import letterbox

# An object of which less than this share of the area remains in a view is no object there, but ignored.
_LEAST_LEFT = 0.4
# Nor is one that has a side below this many pixels.
_LEAST_SIDE = 2.0
# Places drawn for a crop until it keeps an object.
_TRIES = 10
# The centre of a mosaic lies within this share of each side.
_MOSAIC = (0.3, 0.7)

Pair = tuple[np.ndarray, np.ndarray]
"""An image, uint8 [height, width, channels], and its targets [m, COLUMNS]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How views are drawn: uint8 [height, width, channels] of the input, `fill` outside the image.

    An image is enlarged by a factor within `scale`, relative to the size at which it fits, and mirrored half of the
    time if `flip`. `mosaic` is the share of the views that are composed of four images.
    """

    height: int
    width: int
    fill: tuple[int, ...]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    mosaic: float = 0.0
    interpolation: Interpolation = "bilinear"


def random_objects(
    views: Views, index: int, load: Callable[[int], Pair], *, count: int, rng: np.random.Generator
) -> Pair:
    """Return a random view of image `index` of `count`, and its objects; `load` returns an image and its targets.

    It depends only on the images and `rng`.
    """
    if rng.random() >= views.mosaic:
        return _view(views, *load(index), height=views.height, width=views.width, rng=rng)
    canvas = np.empty((views.height, views.width, len(views.fill)), np.uint8)
    x, y = (round(side * rng.uniform(*_MOSAIC)) for side in (views.width, views.height))
    others = rng.integers(0, count, 3).tolist()
    parts = []
    for number, place in enumerate([index, *others]):
        left, right = ((0, x), (x, views.width))[number % 2]
        top, bottom = ((0, y), (y, views.height))[number // 2]
        image, targets = _view(views, *load(place), height=bottom - top, width=right - left, rng=rng)
        canvas[top:bottom, left:right] = image
        targets[:, [LEFT, RIGHT]] += left
        targets[:, [TOP, BOTTOM]] += top
        parts.append(targets)
    return canvas, np.concatenate(parts)


def _view(
    views: Views, image: np.ndarray, targets: np.ndarray, *, height: int, width: int, rng: np.random.Generator
) -> Pair:
    """Return a view of one image in a canvas of these sides, and its objects."""
    rows = present(targets).copy()
    place = letterbox(*image.shape[:2], input_height=height, input_width=width)
    low, high = np.log(views.scale)
    factor = np.exp(rng.uniform(low, high))
    inner = np.maximum(np.round(np.array([place.inner_width, place.inner_height]) * factor), 1)
    if len(rows):
        rows[:, LEFT : BOTTOM + 1] *= np.tile(inner / rows[0, [WIDTH, HEIGHT]], 2)
    offset = _offset(rows, inner, np.array([width, height]), rng)
    canvas = _drawn(views, image, inner=inner, offset=offset, height=height, width=width)
    rows[:, LEFT : BOTTOM + 1] += np.tile(offset, 2)
    rows = _clipped(rows, height=height, width=width)
    if views.flip and rng.random() < 0.5:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
        rows[:, [LEFT, RIGHT]] = width - rows[:, [RIGHT, LEFT]]
    return canvas, rows


def _offset(rows: np.ndarray, inner: np.ndarray, sides: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return where the resized image begins in the canvas, x and y: one that keeps an object, if it has any."""
    room = sides - inner  # negative along a side that is cropped
    boxes = rows[rows[:, STATE] != CROWD][:, LEFT : BOTTOM + 1]
    for _ in range(_TRIES):
        offset = np.round(rng.uniform(np.minimum(room, 0), np.maximum(room, 0)))
        if not len(boxes) or (_left(boxes + np.tile(offset, 2), sides) >= _LEAST_LEFT).any():
            return offset
    box = boxes[rng.integers(len(boxes))]
    centred: np.ndarray = np.round(sides / 2 - (box[:2] + box[2:]) / 2)
    return np.clip(centred, np.minimum(room, 0), np.maximum(room, 0))


def _left(boxes: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return the share of each box [n, 4] that lies within a canvas of these sides."""
    whole = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    shown = np.clip(boxes, 0, np.tile(sides, 2))
    return np.prod(shown[:, 2:] - shown[:, :2], axis=1) / whole


def _drawn(
    views: Views, image: np.ndarray, *, inner: np.ndarray, offset: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Return the part of the image, resized to `inner`, that lies in the canvas when it begins at `offset`."""
    canvas = np.empty((height, width, len(views.fill)), np.uint8)
    canvas[:] = views.fill
    low = np.maximum(offset, 0).astype(int)
    high = np.minimum(offset + inner, (width, height)).astype(int)
    if (high <= low).any():
        return canvas
    scale = np.array(image.shape[1::-1]) / inner
    left, top = ((low - offset) * scale).tolist()
    right, bottom = np.minimum((high - offset) * scale, image.shape[1::-1]).tolist()
    width, height = (high - low).tolist()
    box = (left, top, right, bottom)
    part = resample(image, width=width, height=height, interpolation=views.interpolation, box=box)
    canvas[low[1] : high[1], low[0] : high[0]] = part
    return canvas


def _clipped(rows: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Return the objects clipped to the canvas; those of which too little is left are ignored, none is left out."""
    if not len(rows):
        return rows
    sides = np.array([width, height])
    left = _left(rows[:, LEFT : BOTTOM + 1], sides)
    rows[:, LEFT : BOTTOM + 1] = np.clip(rows[:, LEFT : BOTTOM + 1], 0, np.tile(sides, 2))
    thin = (rows[:, [RIGHT, BOTTOM]] - rows[:, [LEFT, TOP]] < _LEAST_SIDE).any(1)
    rows[(left < _LEAST_LEFT) | thin, STATE] = CROWD
    return rows[left > 0]


def padded(targets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the targets of a batch as float32 [batch, m, COLUMNS], the rows that one lacks of class -1."""
    most = max([1, *map(len, targets)])
    found = np.zeros((len(targets), most, COLUMNS), np.float32)
    found[:, :, CLASS] = -1
    for row, own in zip(found, targets, strict=True):
        row[: len(own)] = own
    return found
