"""Which objects a detector can learn at all: those that some of its points or anchors learn."""

import numpy as np
import torch

from effnet.arch.decoders.record import AnchorHead, Detector
from effnet.data.annotated.objects import BOTTOM, HEIGHT, LEFT, NORMAL, STATE, WIDTH, present
from effnet.data.view.letterbox import letterbox
from effnet.system.text import percent
from effnet.tasks.boxes.anchors import anchors
from effnet.training.detection.anchor_loss import match_anchors
from effnet.training.detection.assign import atss
from effnet.training.detection.grid import make_grid

# Of larger data sets a part is looked at. A smaller share of objects that no point learns is no news.
_MOST_IMAGES, _FEW = 500, 0.02


def findable(labels: np.ndarray, decoder: Detector, *, height: int, width: int) -> str:
    """Return a sentence on the objects of `labels` that nothing learns in an input of these sides, empty if few.

    `labels` are those of images [images, m, COLUMNS]. Images are as in evaluation; for the task-aligned assignment,
    which depends on the answers, it is said of ATSS.
    """
    head, levels = decoder.head, tuple(decoder.neck.levels)
    grid = make_grid(height, width, levels=levels)
    stride = float(grid.strides[0].min())
    boxes = None
    if isinstance(head, AnchorHead):
        found = anchors(height, width, levels=levels, scale=head.scale, octaves=head.octaves, ratios=head.ratios)
        boxes = torch.from_numpy(found)
    objects, unlearnt, small = 0, 0, 0
    for place in np.unique(np.linspace(0, len(labels) - 1, min(len(labels), _MOST_IMAGES)).astype(int)):
        rows = present(labels[place])
        rows = rows[rows[:, STATE] == NORMAL]
        if not len(rows):
            continue
        size = rows[0, [WIDTH, HEIGHT]]
        fit = letterbox(int(size[1]), int(size[0]), input_height=height, input_width=width)
        shown = torch.from_numpy((rows[:, LEFT : BOTTOM + 1] * np.tile(fit.scale, 2)).astype(np.float32))
        learnt = atss(shown, grid).objects if boxes is None else match_anchors(shown, boxes)
        objects += len(shown)
        unlearnt += len(shown) - len(set(learnt.tolist()) - {-1})
        small += int(((shown[:, 2:] - shown[:, :2]).amin(1) < stride).sum())
    if not objects or max(unlearnt, small) / objects < _FEW:
        return ""
    nothing = "Nothing can be learnt" if unlearnt == objects else f"{percent(unlearnt / objects)} cannot be learnt"
    return (
        f"Of the objects in train, {percent(small / objects)} have a side below {stride:g} pixels, the smallest "
        f"stride, in an input of {width} x {height}. {nothing}: no part of the network is responsible for them. A "
        "larger input shows them larger"
    )
