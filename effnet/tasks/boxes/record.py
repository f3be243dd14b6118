"""The boxes that a detector finds in one image."""

from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """The n objects found in one image, in pixels of the upright image.

    `boxes` are [n, 4]: left, top, right, bottom; `scores` [n], from 0 to 1; `classes` int64 [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __post_init__(self) -> None:
        number = len(self.scores)
        if self.boxes.shape != (number, 4) or self.scores.shape != (number,) or self.classes.shape != (number,):
            raise DataError(
                f"boxes, scores and classes must have the shapes [n, 4], [n] and [n]; got {list(self.boxes.shape)}, "
                f"{list(self.scores.shape)} and {list(self.classes.shape)}"
            )
        if not np.isfinite(self.boxes).all() or not np.isfinite(self.scores).all():
            raise DataError("boxes and scores must be finite numbers")

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Return the objects whose score is at least the threshold."""
        kept = self.scores >= threshold
        return Detections(boxes=self.boxes[kept], scores=self.scores[kept], classes=self.classes[kept])
