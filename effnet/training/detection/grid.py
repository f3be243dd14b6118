"""The points of a detector as tensors, and the boxes of its raw values: the twin of effnet.tasks.boxes.points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effnet.tasks.boxes.points import LARGEST_LOG, points


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The n points of all levels: `centres` and `strides` float32 [n, 2] in pixels, `counts` the points of each level.

    `levels` are the numbers of the levels: level l has a stride of 2^l pixels.
    """

    centres: Tensor
    strides: Tensor
    counts: tuple[int, ...]
    levels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.centres)

    def priors(self, size: float) -> Tensor:
        """Return a square of `size` x the stride around each point, [n, 4]: left, top, right, bottom."""
        half = self.strides * size / 2
        return torch.cat((self.centres - half, self.centres + half), dim=1)

    def inside(self, boxes: Tensor, *, margin: float = 0.0) -> Tensor:
        """Return whether points lie inside boxes [m, 4], by more than `margin` pixels: bool [m, n]."""
        low = self.centres[None] - boxes[:, None, :2]
        high = boxes[:, None, 2:] - self.centres[None]
        found: Tensor = torch.minimum(low, high).amin(2) > margin
        return found


def make_grid(height: int, width: int, *, levels: Sequence[int], device: torch.device | None = None) -> Grid:
    """Return the points of an input of `height` x `width` pixels."""
    found = points(height, width, levels=levels)
    return Grid(
        centres=torch.from_numpy(found.centres).to(device),
        strides=torch.from_numpy(np.ascontiguousarray(found.strides)).to(device),
        counts=tuple(np.bincount(found.levels).tolist()),
        levels=tuple(levels),
    )


def decode(raw: Tensor, grid: Grid) -> Tensor:
    """Return boxes [..., n, 4], left, top, right, bottom in pixels, from a detector's raw values of the same shape.

    It equals `effnet.tasks.boxes.points.decode_points`.
    """
    distances = raw.clamp(max=LARGEST_LOG).exp()
    low = grid.centres - distances[..., :2] * grid.strides
    high = grid.centres + distances[..., 2:] * grid.strides
    return torch.cat((low, high), dim=-1)
