"""The overlap of boxes as tensors: intersection over union (IoU), and the generalised one."""

from typing import NamedTuple

import torch
from torch import Tensor


class Overlap(NamedTuple):
    """IoU and generalised IoU of boxes, of one shape."""

    iou: Tensor
    giou: Tensor


_LEAST = 1e-9


def overlap(boxes: Tensor, others: Tensor) -> Overlap:
    """Return the overlap of boxes [..., 4], left, top, right, bottom, with others; the shapes broadcast.

    Source: Rezatofighi et al. 2019, "Generalized intersection over union", algorithm 1.
    """
    shared = _area(torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - shared
    around = _area(torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:]))
    iou = shared / union.clamp_min(_LEAST)
    return Overlap(iou, iou - (around - union) / around.clamp_min(_LEAST))


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp_min(0).prod(-1)
