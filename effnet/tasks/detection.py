"""Detection: where the objects in an image are, and of which classes."""

from pathlib import Path

import numpy as np

from effnet.data.annotated.objects import OBJECTS
from effnet.errors import BundleError
from effnet.tasks.boxes.whole import find_objects
from effnet.tasks.task import Figure, Output, Task


def check_finite(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless the outputs, float32 [batch, columns], are finite numbers."""
    if not np.isfinite(rows).all():
        raise BundleError(
            f"{path} must return finite numbers; those for {int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} "
            "images are not: it is damaged or another model. `effnet export` writes it again"
        )


TITLED = "an object detector"
BOXES = Output(
    name="boxes",
    activation="none",
    meaning="four raw numbers of the box at each place: logarithms of distances from a point, or codes of an anchor",
    titled=TITLED,
)
SCORES = Output(name="scores", activation="none", meaning="the logit of each class at each place", titled=TITLED)

TASK = Task(
    name="detection",
    title="object detection",
    labels=OBJECTS,
    output=SCORES,
    figure=Figure(key="ap", title="AP"),
    figure_drop=0.01,
    check=check_finite,
    answer=find_objects,
    whole=find_objects,
    several=(BOXES, SCORES),
    learning="effnet.training.detection.learning",
    scoring="effnet.measurement.detection.evaluate",
    reporting="effnet.report.detection.section",
)
