"""Masks of single objects as COCO stores them: run lengths and polygons, and their pixels; no pycocotools.

Source: cocoapi, common/maskApi.c (rleFrString, rleToString, rleFrPoly), to which the results are equal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.errors import DataError
from effnet.system.text import brief

# cocoapi finds a polygon's pixels on a grid with five points per pixel.
_FINE = 5
# Points that a polygon's outline may take on this grid, and the largest coordinate in pixels.
_MOST_STEPS, _FARTHEST = 4_000_000, 2**24
_MOST_RUNS = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rle:
    """A mask of `height` x `width` pixels as run lengths, int64: off, on, off, ... down the columns, left to right."""

    height: int
    width: int
    counts: np.ndarray

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or (len(self.counts) and self.counts.min() < 0):
            raise DataError("the run lengths of a mask must be whole numbers of at least 0")
        if (total := int(self.counts.sum())) != self.height * self.width:
            raise DataError(
                f"the run lengths of a mask must add up to height x width, {self.height} x {self.width} = "
                f"{self.height * self.width:,}; they add up to {total:,}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Polygons:
    """The outlines of one object, float64 [points, 2] each: x and y in pixels. Its pixels are those in any of them."""

    parts: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        if any(part.ndim != 2 or part.shape[1] != 2 or len(part) < 3 for part in self.parts) or not self.parts:
            raise DataError("a polygon must be at least 3 points of x and y")
        if not all(np.isfinite(part).all() for part in self.parts):
            raise DataError("the points of a polygon must be finite numbers")


Shape = Rle | Polygons


def pixels_of(shape: Shape, *, height: int, width: int) -> np.ndarray:
    """Return the mask of an object, bool [height, width]; raise DataError if it is of another size."""
    if isinstance(shape, Polygons):
        mask = np.zeros((height, width), bool)
        for part in shape.parts:
            mask |= _inside(part, height, width)
        return mask
    if (shape.height, shape.width) != (height, width):
        raise DataError(
            f"a mask must have the size of its image, {width} x {height}; it has {shape.width} x {shape.height}"
        )
    values = np.arange(len(shape.counts)) % 2 == 1
    return np.repeat(values, shape.counts).reshape(width, height).T


def rle_of(mask: np.ndarray) -> Rle:
    """Return the run lengths of a mask, bool [height, width]."""
    flat = np.asarray(mask, bool).T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [len(flat)]))
    counts = np.diff(edges)
    if len(flat) and flat[0]:
        counts = np.concatenate(([0], counts))
    return Rle(height=mask.shape[0], width=mask.shape[1], counts=counts.astype(np.int64))


def box_of(shape: Shape) -> tuple[float, float, float, float] | None:
    """Return the box around a shape: left, top, right, bottom in pixels, None if it has no pixels."""
    if isinstance(shape, Polygons):
        points = np.concatenate(shape.parts)
        return (*map(float, points.min(0)), *map(float, points.max(0)))  # type: ignore[return-value]
    ends = np.cumsum(shape.counts)[1::2]
    starts = ends - shape.counts[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return None
    left, right = starts // shape.height, (ends - 1) // shape.height
    within = left == right  # a run over more than one column reaches the top and the bottom
    top = np.where(within, starts % shape.height, 0).min()
    bottom = np.where(within, (ends - 1) % shape.height, shape.height - 1).max()
    return float(left.min()), float(top), float(right.max()) + 1, float(bottom) + 1


def area_of(shape: Shape) -> float:
    """Return the area of a shape in pixels: of polygons, the sum over their parts by the shoelace formula."""
    if isinstance(shape, Rle):
        return float(shape.counts[1::2].sum())
    area = 0.0
    for part in shape.parts:
        x, y = part.T
        area += abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])) / 2
    return area


def shape_from_coco(value: Any) -> Shape | None:
    """Return the value of COCO's `segmentation`, None if it is empty; raise DataError if it is neither kind of mask."""
    if not value:
        return None
    if isinstance(value, list):
        return Polygons(parts=tuple(_points(part) for part in value))
    size = value.get("size") if isinstance(value, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and 0 < side < 2**20 for side in size):
        raise DataError(f"a segmentation must be a list of polygons, or have size and counts; got {brief(value)}")
    counts = value.get("counts")
    if isinstance(counts, str):
        return Rle(height=size[0], width=size[1], counts=counts_of(counts))
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 2**40 for count in counts):
        raise DataError(f"the counts of a segmentation must be text or whole numbers; got {brief(counts)}")
    return Rle(height=size[0], width=size[1], counts=np.array(counts, np.int64))


def _points(part: Any) -> np.ndarray:
    try:
        values = np.asarray(part, np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.empty(0)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        raise DataError(f"a polygon must be a list of at least 3 points, x and y by turns; got {brief(part)}")
    return values.reshape(-1, 2)


def counts_of(text: str) -> np.ndarray:
    """Return the run lengths, int64, of cocoapi's compressed text.

    Each number has 5 bits per character, the lowest first, and is, from the fourth on, the difference to the run
    before last.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if len(codes) and (codes.min() < 0 or codes.max() > 63):
        raise DataError(f"the counts of a mask must be characters from '0' to 'o'; got {brief(text)}")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    if len(codes) and (not len(ends) or ends[-1] != len(codes) - 1):
        raise DataError(f"the counts of a mask must not end within a number; got {brief(text)}")
    lengths = ends - starts + 1
    if len(ends) > _MOST_RUNS or (len(lengths) and lengths.max() > 8):
        raise DataError("the counts of a mask must be below 2^40")
    index = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * index), starts) if len(codes) else np.empty(0, np.int64)
    numbers = np.where(codes[ends] & 16, numbers - (1 << (5 * lengths)), numbers)
    # Two interleaved running sums; the first three numbers start them, and the first of all stands alone.
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def text_of(rle: Rle) -> str:
    """Return cocoapi's compressed text of run lengths, which `counts_of` reads."""
    found = []
    for place, count in enumerate(rle.counts.tolist()):
        value = count - int(rle.counts[place - 2]) if place > 2 else count
        while True:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            found.append(chr((low | 32 if more else low) + 48))
            if not more:
                break
    return "".join(found)


def _inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the pixels inside an outline, bool [height, width]: along each column, it turns them on and off."""
    if np.abs(points).max() > _FARTHEST:
        raise DataError("a polygon must not reach far beyond its image")
    fine = np.trunc(_FINE * points + 0.5).astype(np.int64)
    u, v = _outline(fine)
    turned = np.flatnonzero(u[1:] != u[:-1]) + 1
    x = (np.where(u[turned] < u[turned - 1], u[turned], u[turned] - 1) + 0.5) / _FINE - 0.5
    y = np.ceil(np.clip((np.minimum(v[turned], v[turned - 1]) + 0.5) / _FINE - 0.5, 0, height))
    kept = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    places = x[kept].astype(np.int64) * height + y[kept].astype(np.int64)
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(changes) % 2 == 1).reshape(width, height).T


def _outline(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid points along an outline in order, int64 x and y: one per step of the longer direction."""
    start, end = points, np.roll(points, -1, axis=0)
    steps = np.abs(end - start).max(1)
    if steps.sum() > _MOST_STEPS:
        raise DataError("a polygon must not reach far beyond its image")
    start, end, steps = start[steps > 0], end[steps > 0], steps[steps > 0]
    apart = np.abs(end - start)
    flat = apart[:, 0] >= apart[:, 1]
    # As cocoapi, step upwards along the longer direction, so that a line has the same points both ways.
    flip = np.where(flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    low, high = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    slope = np.where(flat, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0]) / steps
    edge = np.repeat(np.arange(len(steps)), steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    step = np.where(flip[edge], steps[edge] - step, step)
    along = np.where(flat, low[:, 0], low[:, 1])[edge] + step
    across = np.trunc(np.where(flat, low[:, 1], low[:, 0])[edge] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(flat[edge], along, across), np.where(flat[edge], across, along)
