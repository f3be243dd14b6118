"""Which points of a detector learn which object: ATSS, and task-aligned assignment as its alternative."""

from dataclasses import dataclass

import torch
from torch import Tensor

from effnet.training.detection.grid import Grid
from effnet.training.detection.overlap import overlap

PRIOR = 8.0
"""The side of a point's square prior in strides."""

# A point on the edge of an object is not inside it.
_MARGIN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assigned:
    """The object that each of n points learns, int64 [n], -1 for none, and the `quality` that its score should have.

    `quality` is float32 [n]; None if it is the overlap of the predicted box with the object.
    """

    objects: Tensor
    quality: Tensor | None = None


@torch.no_grad()
def atss(boxes: Tensor, grid: Grid, *, nearest: int = 9) -> Assigned:
    """Return the assignment of m boxes [m, 4] by adaptive training sample selection.

    The candidates of a box are the `nearest` points of each level to its centre. Those whose prior overlaps it by at
    least the mean plus the standard deviation of all its candidates, and that lie inside it, learn it; a point of
    several boxes that of the largest overlap. Source: Zhang et al. 2020, algorithm 1, with one square prior.
    """
    if not len(boxes):
        return Assigned(objects=torch.full((len(grid),), -1, device=boxes.device))
    candidates = _nearest(boxes, grid, nearest)
    ious = overlap(boxes[:, None], grid.priors(PRIOR)[candidates]).iou
    positive = ious >= (ious.mean(1) + ious.std(1))[:, None]
    positive &= grid.inside(boxes, margin=_MARGIN).gather(1, candidates)
    best = ious.new_full((len(boxes), len(grid)), -1.0)
    best.scatter_(1, candidates, torch.where(positive, ious, -1.0))
    return Assigned(objects=_most(best))


def _nearest(boxes: Tensor, grid: Grid, number: int) -> Tensor:
    """Return the places of the points nearest to the centre of each box, int64 [m, candidates], level by level."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    found, first = [], 0
    for count in grid.counts:
        away = (centres[:, None] - grid.centres[None, first : first + count]).square().sum(2)
        found.append(first + away.topk(min(number, count), dim=1, largest=False).indices)
        first += count
    return torch.cat(found, dim=1)


def _most(values: Tensor) -> Tensor:
    """Return the row of the largest value of each column of [m, n], -1 if that is below 0."""
    most, rows = values.max(0)
    return torch.where(most >= 0, rows, -1)


@torch.no_grad()
def task_aligned(
    scores: Tensor,
    found: Tensor,
    boxes: Tensor,
    classes: Tensor,
    grid: Grid,
    *,
    alpha: float = 1.0,
    beta: float = 6.0,
    most: int = 13,
) -> Assigned:
    """Return the assignment of m boxes [m, 4] of `classes` [m] to the points that already answer best.

    `scores` are probabilities [n, classes], `found` the predicted boxes [n, 4]. The `most` points inside a box with the
    largest alignment score^alpha * IoU^beta learn it; a point of several boxes that of the largest IoU. The quality is
    the alignment, scaled so that the best of a box has the box's best IoU. Source: Feng et al. 2021, "TOOD", equation 4
    and section 3.2.
    """
    if not len(boxes):
        none = torch.full((len(grid),), -1, device=boxes.device)
        return Assigned(objects=none, quality=scores.new_zeros(len(grid)))
    ious = overlap(boxes[:, None], found[None]).iou
    aligned = scores[:, classes].T.pow(alpha) * ious.pow(beta) * grid.inside(boxes, margin=_MARGIN)
    best = aligned.topk(min(most, len(grid)), dim=1)
    chosen = torch.zeros_like(aligned, dtype=torch.bool).scatter_(1, best.indices, best.values > 0)
    objects = _most(torch.where(chosen, ious, -1.0))
    mine = chosen & (objects[None] == torch.arange(len(boxes), device=boxes.device)[:, None])
    largest, widest = ((values * mine).amax(1) for values in (aligned, ious))
    quality = (aligned * mine * (widest / largest.clamp_min(1e-12))[:, None]).amax(0)
    return Assigned(objects=objects, quality=quality)
