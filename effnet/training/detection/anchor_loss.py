"""What EfficientDet learns: the matching of its anchors with objects, and its loss.

Source: Tan et al. 2020, "EfficientDet", section 5.1; google/automl, efficientdet/tf2/train_lib.py and object_detection/
argmax_matcher.py; effdet 0.4.1, loss.py. They leave out the box loss of codes that are exactly 0; this does not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from effnet.data.annotated.objects import BOTTOM, CLASS, LEFT, NORMAL, STATE
from effnet.training.detection.losses import focal_loss, huber_loss
from effnet.training.detection.overlap import overlap


@torch.no_grad()
def match_anchors(boxes: Tensor, anchors: Tensor, *, least: float = 0.5) -> Tensor:
    """Return the box of m [m, 4] that each of n anchors [n, 4] learns, int64 [n], -1 for none.

    It is the box of the largest IoU, if that reaches `least`. The best anchor of each box learns it in any case; if it
    is the best of several, the first of them.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device)
    ious = overlap(boxes[:, None], anchors[None]).iou
    most, rows = ious.max(0)
    matched = torch.where(most >= least, rows, -1)
    best = ious.argmax(1)
    for row in range(len(boxes) - 1, -1, -1):
        matched[best[row]] = row
    return matched


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return EfficientDet's codes [n, 4], ty, tx, th, tw, of boxes [n, 4] relative to anchors [n, 4].

    It equals `effnet.tasks.boxes.anchors.encode`.
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2 / sides
    grown = torch.log((boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-6) / sides)
    return torch.cat((shift.flip(1), grown.flip(1)), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLoss:
    """Focal loss of the scores and Huber loss of the codes, divided by the positive anchors of the batch plus 1.

    The Huber loss is divided by 4, the numbers of a code, and has `box_weight`.
    """

    alpha: float = 0.25
    gamma: float = 1.5
    delta: float = 0.1
    box_weight: float = 50.0

    def __call__(self, boxes: Tensor, scores: Tensor, targets: Tensor, anchors: Tensor) -> Tensor:
        """Return the loss of codes [batch, n, 4] and logits [batch, n, classes], a scalar.

        `targets` are [batch, m, COLUMNS] in pixels of the input; objects that need not be found are left out.
        """
        wanted, box_sum, positives = torch.zeros_like(scores, dtype=torch.float32), scores.new_zeros(()).float(), 0
        for number, rows in enumerate(targets):
            rows = rows[(rows[:, CLASS] >= 0) & (rows[:, STATE] == NORMAL)]
            matched = match_anchors(rows[:, LEFT : BOTTOM + 1], anchors)
            learns = (matched >= 0).nonzero()[:, 0]
            own = rows[matched[learns]]
            wanted[number, learns, own[:, CLASS].long()] = 1
            codes = encode_boxes(own[:, LEFT : BOTTOM + 1], anchors[learns])
            box_sum = box_sum + huber_loss(boxes[number, learns].float(), codes, delta=self.delta).sum()
            positives += len(learns)
        score_sum = focal_loss(scores.float(), wanted, alpha=self.alpha, gamma=self.gamma).sum()
        return (score_sum + self.box_weight * box_sum / 4) / (positives + 1)
