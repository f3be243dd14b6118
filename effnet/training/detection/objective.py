"""The loss of a detector of points on a batch: which points learn which object, and what they should answer."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from effnet.data.annotated.objects import BOTTOM, CLASS, LEFT, NORMAL, STATE
from effnet.training.detection.assign import Assigned, atss, task_aligned
from effnet.training.detection.grid import Grid, decode
from effnet.training.detection.losses import quality_focal_loss
from effnet.training.detection.overlap import overlap

Assigner = Literal["atss", "tal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointLoss:
    """Quality focal loss of the scores and GIoU of the boxes, divided by the number of points that learn an object.

    `box_weight` is that of the boxes. A point's score should be the IoU of its box with its object (`assigner` atss),
    or its alignment (tal). Points inside an object that need not be found learn no score.

    Source: Li et al. 2020, "Generalized focal loss", equation 6, without its distributions; the weight as there.
    """

    assigner: Assigner = "atss"
    box_weight: float = 2.0

    def __call__(self, boxes: Tensor, scores: Tensor, targets: Tensor, grid: Grid) -> Tensor:
        """Return the loss of raw boxes [batch, n, 4] and logits [batch, n, classes], a scalar.

        `targets` are [batch, m, COLUMNS] in pixels of the input.
        """
        boxes, scores = decode(boxes.float(), grid), scores.float()
        quality, counted = torch.zeros_like(scores), torch.ones_like(scores[..., :1])
        box_sum, points = scores.new_zeros(()), 0
        for number, rows in enumerate(targets):
            rows = rows[rows[:, CLASS] >= 0]
            wanted = rows[rows[:, STATE] == NORMAL]
            objects, classes = wanted[:, LEFT : BOTTOM + 1], wanted[:, CLASS].long()
            assigned = self._assign(boxes[number].detach(), scores[number].detach(), objects, classes, grid)
            learns = (assigned.objects >= 0).nonzero()[:, 0]
            which = assigned.objects[learns]
            found = overlap(boxes[number, learns], objects[which])
            good = found.iou.detach() if assigned.quality is None else assigned.quality[learns]
            quality[number, learns, classes[which]] = good
            box_sum = box_sum + (1 - found.giou).sum()
            points += len(learns)
            others = rows[rows[:, STATE] != NORMAL][:, LEFT : BOTTOM + 1]
            if len(others):
                counted[number, grid.inside(others).any(0) & (assigned.objects < 0)] = 0
        score_sum = (quality_focal_loss(scores, quality) * counted).sum()
        return (score_sum + self.box_weight * box_sum) / max(1, points)

    def _assign(self, boxes: Tensor, scores: Tensor, objects: Tensor, classes: Tensor, grid: Grid) -> Assigned:
        if self.assigner == "tal":
            return task_aligned(scores.sigmoid(), boxes, objects, classes, grid)
        return atss(objects, grid)
