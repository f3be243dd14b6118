"""Relate the sizes of objects to a network's input: which are smaller than a cell of its finest output."""

import math
from collections.abc import Sequence

import numpy as np

from effnet.data.annotated.record import Annotated, Finding

SIDES = (96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 448, 512, 640, 768, 896, 1024, 1280)
"""The longer sides of the inputs that `fit` chooses from, in pixels: multiples of 32, the backbones' total stride."""

# A share of small boxes below this is no reason for a larger input.
_FEW = 0.05


def sizes_at(images: Sequence[Annotated], *, height: int, width: int) -> np.ndarray:
    """Return the size of each object, float64 [objects], without crowds, in an input that shows whole images.

    It is the square root of the box's area, in pixels of the input, to which images are scaled in proportion.
    """
    found = [np.empty(0)]
    for image in images:
        scale = min(height / image.height, width / image.width)
        boxes = image.boxes[~image.crowd]
        found.append(scale * np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    return np.concatenate(found)


def typical_share(images: Sequence[Annotated]) -> float | None:
    """Return the median side of the objects, as a share of the longer side of their image; None without objects."""
    sizes = sizes_at(images, height=1, width=1)
    return float(np.median(sizes)) if len(sizes) else None


def small_objects(images: Sequence[Annotated], *, height: int, width: int, stride: int = 8) -> Finding | None:
    """Return the finding that many boxes are smaller than `stride` pixels in such an input, None if only a few are."""
    sizes = sizes_at(images, height=height, width=width)
    small = sizes < stride
    if not len(sizes) or small.mean() <= _FEW:
        return None
    longer = max(height, width)
    enough = [side for side in SIDES if side > longer and (sizes * side / longer < stride).mean() <= _FEW]
    larger = [side for side in SIDES if side > longer]
    if enough:
        advice = f"choose {_input(enough[0], height, width)}"
    elif larger:
        advice = f"choose {_input(larger[-1], height, width)}, or cut the images into tiles"
    else:
        advice = "cut the images into tiles"
    share = math.floor(100 * small.mean() + 0.5)
    return Finding(
        kind="small",
        count=int(small.sum()),
        sentence=f"{share} % of the boxes are under {stride} px at {_input(longer, height, width)}: {advice}.",
    )


def _input(longer: int, height: int, width: int) -> str:
    """Return an input of these proportions in words, its sides multiples of 32; one number if it is square."""
    scale = longer / max(height, width)
    sides = [max(32, 32 * math.floor(side * scale / 32 + 0.5)) for side in (width, height)]
    return str(longer) if height == width else f"{sides[0]} x {sides[1]}"
