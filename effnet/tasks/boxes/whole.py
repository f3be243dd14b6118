"""The objects in an image of any size, in its pixels, by a detector with points or anchors."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from effnet.arch.decoders.record import AnchorHead, Detector
from effnet.arch.spec import ArchSpec
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.data.view.letterbox import letterbox
from effnet.tasks.boxes.anchors import anchors
from effnet.tasks.boxes.anchors import decode as decode_anchors
from effnet.tasks.boxes.candidates import MOST_CANDIDATES, Decode, detect
from effnet.tasks.boxes.points import decode_points, points
from effnet.tasks.boxes.record import Detections

Compute = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""From prepared images, uint8 [batch, height, width, channels], to the outputs by name, [batch, ...]."""

LEAST_SCORE = 0.05
"""Objects of lower scores are left out by default: there are many, and few are right."""

# A threshold of 0 would decode every place.
_LEAST = 1e-4

MOST_OBJECTS = MOST_CANDIDATES
"""The most objects of an image by default; COCO's 100 would be too few for cells or a crowd."""


@lru_cache(maxsize=16)
def decoder_of(decoder: Detector, size: tuple[int, int]) -> Decode:
    """Return the function that decodes the raw boxes of a detector for an input of this height and width."""
    head, levels = decoder.head, tuple(decoder.neck.levels)
    if isinstance(head, AnchorHead):
        priors = anchors(*size, levels=levels, scale=head.scale, octaves=head.octaves, ratios=head.ratios)
        return lambda raw, places: decode_anchors(raw, priors[places])
    cells = points(*size, levels=levels)
    return lambda raw, places: decode_points(raw, cells.centres[places], cells.strides[places])


def find_objects(
    compute: Compute,
    image: np.ndarray,
    arch: ArchSpec,
    preprocess: Preprocess,
    *,
    threshold: float | None = None,
    most: int = MOST_OBJECTS,
) -> Detections:
    """Return the objects of an upright image, uint8 [height, width, channels], in its pixels, best first."""
    height, width = preprocess.size
    outputs = compute(resize_and_crop(image, preprocess)[None])
    place = letterbox(*image.shape[:2], input_height=height, input_width=width)
    decoder = arch.decoder
    assert isinstance(decoder, Detector)
    decode, least = decoder_of(decoder, preprocess.size), LEAST_SCORE if threshold is None else max(threshold, _LEAST)
    found = detect(outputs["boxes"][0], outputs["scores"][0], decode, threshold=least, most=most)
    boxes = place.to_image(found.boxes.astype(np.float64))
    # What lies in the padding is nothing in the image.
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return Detections(boxes=boxes[inside], scores=found.scores[inside], classes=found.classes[inside])
