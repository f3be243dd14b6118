"""Detection: where the objects in an image are, and of which classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.data.annotated.objects import OBJECTS
from effnet.errors import BundleError
from effnet.tasks.boxes.record import Detections
from effnet.tasks.task import Figure, Output, Task


def check_logits(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless the logits, float32 [batch, places, classes], are finite numbers."""
    if rows.ndim != 3 or not np.isfinite(rows).all():
        raise BundleError(
            f"{path} must return finite logits [batch, places, classes]; it returned {list(rows.shape)}: it is damaged "
            "or another model. `effnet export` writes it again"
        )


def to_objects(found: Detections, names: Sequence[str], *, top: int, threshold: float) -> Detections:
    """Return the objects of an image whose score is at least `threshold`, at most `top`, the highest scores first."""
    kept = found.above(threshold)
    order = np.argsort(-kept.scores, kind="stable")[:top]
    return Detections(boxes=kept.boxes[order], scores=kept.scores[order], classes=kept.classes[order])


SCORES = Output(
    name="scores",
    activation="none",
    meaning="the logit of each class at each place; the output boxes holds a box for each",
    titled="an object detector",
)

BOXES = Output(
    name="boxes",
    activation="none",
    meaning="the raw numbers of the box at each place, which effnet.tasks.boxes decodes",
    titled="an object detector",
)

TASK = Task(
    name="detection",
    title="object detection",
    labels=OBJECTS,
    output=SCORES,
    several=(BOXES, SCORES),
    figure=Figure(key="ap", title="AP"),
    check=check_logits,
    answer=to_objects,
    learning="effnet.training.detection.learning",
    scoring="effnet.measurement.detection.score",
    reporting="effnet.report.detection.section",
)
