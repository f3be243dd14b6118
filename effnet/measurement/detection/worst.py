"""The images on which a detector is wrong most often, with their boxes."""

from collections.abc import Sequence

import numpy as np

from effnet.data.annotated.record import Annotated
from effnet.measurement.detection.curves import Outcome
from effnet.measurement.detection.record import BoxRow, WorstImage
from effnet.tasks.boxes.record import Detections

_WORST, _MOST_BOXES = 12, 400


def worst_images(
    truths: Sequence[Annotated],
    kept: Sequence[Detections],
    outcomes: Sequence[Outcome],
    *,
    indices: Sequence[int] | None = None,
) -> list[WorstImage]:
    """Return the images with most errors, those with fewer right detections first if these are equal.

    `kept` are the detections that reach the threshold, `indices` the places of the images in their split.
    """
    wrong, missed, right = (
        np.array([int(getattr(outcome, name).sum()) for outcome in outcomes]) for name in ("wrong", "missed", "right")
    )
    order = np.lexsort((right, -(wrong + missed)))[:_WORST]
    return [
        WorstImage(
            index=i if indices is None else int(indices[i]),
            source=truths[i].path,
            width=truths[i].width,
            height=truths[i].height,
            right=int(right[i]),
            wrong=int(wrong[i]),
            missed=int(missed[i]),
            objects=_objects(truths[i], outcomes[i]),
            found=_found(kept[i], outcomes[i]),
        )
        for i in order[(wrong + missed)[order] > 0].tolist()
    ]


def _objects(truth: Annotated, outcome: Outcome) -> tuple[BoxRow, ...]:
    counts = ~(truth.crowd | truth.difficult)
    # Missed ones are never among those that are left out.
    order = np.argsort(~outcome.missed, kind="stable")[:_MOST_BOXES]
    return tuple(
        BoxRow(
            box=_rounded(truth.boxes[i]),
            label=int(truth.classes[i]),
            right=not outcome.missed[i] if counts[i] else None,
        )
        for i in order.tolist()
    )


def _found(kept: Detections, outcome: Outcome) -> tuple[BoxRow, ...]:
    order = np.argsort(-kept.scores, kind="stable")[:_MOST_BOXES]
    return tuple(
        BoxRow(
            box=_rounded(kept.boxes[i]),
            label=int(kept.classes[i]),
            right=bool(outcome.right[i]) if outcome.right[i] or outcome.wrong[i] else None,
            score=round(float(kept.scores[i]), 3),
        )
        for i in order.tolist()
    )


def _rounded(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(side), 1) for side in box)
    return left, top, right, bottom
