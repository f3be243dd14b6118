"""Segmentation: each pixel of an image has one of several classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.data.annotated.mask_labels import MASKS
from effnet.errors import BundleError
from effnet.tasks.masks.enlarge import classes_of
from effnet.tasks.masks.record import Segmented, segmented
from effnet.tasks.task import Figure, Output, Task


def check_logits(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless float32 [batch, classes, h, w] holds finite numbers."""
    if rows.ndim != 4 or not np.isfinite(rows).all():
        raise BundleError(
            f"{path} must return finite logits [batch, classes, h, w]; it returned {list(rows.shape)}: it is "
            "damaged or another model. `effnet export` writes it again"
        )


def to_segmented(logits: np.ndarray, names: Sequence[str], *, top: int, threshold: float) -> Segmented:
    """Return the classes of an input, from its logits [classes, h, w], at their size.

    For an image of any size see `effnet.tasks.masks.plan.segment`.
    """
    mask = classes_of(logits, height=logits.shape[1], width=logits.shape[2])
    return segmented(mask, num_classes=len(names))


MASK = Output(
    name="mask",
    activation="none",
    meaning="the logit of each class in each cell of the image",
    titled="a segmenter",
)

TASK = Task(
    name="segmentation",
    title="segmentation",
    labels=MASKS,
    output=MASK,
    figure=Figure(key="miou", title="mIoU"),
    check=check_logits,
    answer=to_segmented,
    learning="effnet.training.segmentation.learning",
    scoring="effnet.measurement.segmentation.score",
    reporting="effnet.report.segmentation.section",
)
