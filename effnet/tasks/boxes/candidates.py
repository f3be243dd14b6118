"""From a detector's raw outputs for one image to its objects: choose candidates, decode them, suppress repetitions."""

import math
from collections.abc import Callable

import numpy as np

from effnet.errors import DataError
from effnet.tasks.boxes.record import Detections
from effnet.tasks.boxes.suppress import soften, suppress

MOST_CANDIDATES = 1000
"""The boxes with the highest scores that are decoded and compared."""

Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From raw boxes [n, 4] and their places among all, int64 [n], to boxes in pixels of the input."""


def choose(
    logits: np.ndarray, *, threshold: float, most: int = MOST_CANDIDATES, one_class: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places, classes and scores of the candidates in logits [places, classes], the highest scores first.

    They are those whose score, the logit's sigmoid, is at least `threshold`, at most `most`. A place may have several
    classes unless `one_class`. The sigmoid is computed of the candidates alone.
    """
    if not 0 < threshold < 1:
        raise DataError(f"the threshold must be above 0 and below 1; got {threshold:g}")
    if logits.ndim != 2 or not logits.shape[1]:
        raise DataError(f"logits must be [places, classes]; got {list(logits.shape)}")
    limit = math.log(threshold / (1 - threshold))
    if one_class:
        classes = logits.argmax(1)
        best = logits[np.arange(len(logits)), classes]
        places = np.flatnonzero(best >= limit)
        classes, values = classes[places], best[places]
    else:
        flat = np.flatnonzero(logits.ravel() >= limit)
        values = logits.ravel()[flat]
        places, classes = np.divmod(flat, logits.shape[1])
    order = np.argsort(-values, kind="stable")
    if len(order) > most:
        order = order[:most]
    return places[order], classes[order].astype(np.int64), 1 / (1 + np.exp(-values[order].astype(np.float64)))


def detect(
    boxes: np.ndarray,
    logits: np.ndarray,
    decode: Decode,
    *,
    threshold: float = 0.05,
    iou: float = 0.6,
    most: int = 100,
    candidates: int = MOST_CANDIDATES,
    one_class: bool = False,
    soft: bool = False,
) -> Detections:
    """Return the objects in one image, in pixels of the input, from raw boxes [places, 4] and logits [places, classes].

    With `soft`, a box lowers the scores of those that it overlaps, whatever `iou` is, instead of dropping them; so did
    EfficientDet for its published AP, with `one_class` too. Boxes without an area, and values that are not finite, as
    of a damaged network, are left out.
    """
    if boxes.shape != (len(logits), 4):
        raise DataError(f"boxes must be [{len(logits)}, 4], one of each row of the logits; got {list(boxes.shape)}")
    places, classes, scores = choose(logits, threshold=threshold, most=candidates, one_class=one_class)
    decoded = decode(boxes[places], places).astype(np.float32)
    sound = np.isfinite(decoded).all(1) & np.isfinite(scores) & (decoded[:, 2:] > decoded[:, :2]).all(1)
    decoded, classes, scores = decoded[sound], classes[sound], scores[sound].astype(np.float32)
    if soft:
        kept, lowered = soften(decoded, scores, classes, most=most)
        return Detections(boxes=decoded[kept], scores=lowered.astype(np.float32), classes=classes[kept])
    kept = suppress(decoded, scores, classes, iou=iou, most=most)
    return Detections(boxes=decoded[kept], scores=scores[kept], classes=classes[kept])
