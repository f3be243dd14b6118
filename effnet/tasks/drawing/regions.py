"""The classes of pixels drawn over an image: a tint, the borders between classes, and a legend with their shares."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from effnet.data.annotated.masks.codes import IGNORE
from effnet.errors import DataError
from effnet.tasks.drawing.boxes import class_texts
from effnet.tasks.drawing.colours import colours
from effnet.tasks.drawing.frame import Scale, as_canvas, scale_of, with_legend

_TINT = 0.45
_BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__", "bg"})


def background_of(class_names: Sequence[str]) -> int | None:
    """Return the number of the class that is called background, None if there is none."""
    return next((i for i, name in enumerate(class_names) if name.strip().lower() in _BACKGROUND_NAMES), None)


def draw_regions(image: np.ndarray, mask: np.ndarray, class_names: Sequence[str], *, legend: bool = True) -> np.ndarray:
    """Return an upright image, uint8 [height, width, channels], under the classes of its pixels [height, width].

    The result is uint8 [height, width, 3], with a `legend` of the classes and their shares below it. The class called
    background, and pixels that are 255 (ignored), are not tinted. An image under 320 pixels is enlarged by a whole
    number.

    Raises:
        DataError: the mask has another size than the image, or other classes.
    """
    if mask.shape != image.shape[:2]:
        raise DataError(f"a mask must have its image's size, {list(image.shape[:2])}; got {list(mask.shape)}")
    number = len(class_names)
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    if len(counts) > IGNORE + 1 or counts[number:IGNORE].any():
        raise DataError(f"the classes of pixels must be below {number}, or {IGNORE}; got {int(mask.max())}")
    scale, background = scale_of(*mask.shape), background_of(class_names)
    canvas = np.asarray(as_canvas(image, scale)).copy()
    large = mask.repeat(scale.factor, axis=0).repeat(scale.factor, axis=1)
    table = np.zeros((IGNORE + 1, 3), np.float32)
    table[:number] = colours(number)
    plain = np.zeros(IGNORE + 1, bool)
    plain[number:] = True
    if background is not None:
        plain[background] = True
    tinted = ~plain[large]
    colour = table[large[tinted]]
    canvas[tinted] = np.round(canvas[tinted] * (1 - _TINT) + colour * _TINT)
    border = _borders(large, scale) & tinted
    canvas[border] = table[large[border]]
    if not legend:
        return canvas
    names, known = class_texts(class_names), max(1, int(counts[:IGNORE].sum()))
    entries = [
        (colours(number)[i], f"{names[i]} {100 * counts[i] / known:.1f} %")
        for i in np.flatnonzero(counts[:number]).tolist()
        if i != background
    ]
    return np.asarray(with_legend(Image.fromarray(canvas), entries, scale=scale))


def _borders(mask: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the pixels of each class beside another class, as wide as a line, bool [height, width]."""
    border = np.zeros(mask.shape, bool)
    for step in range(1, scale.line + 1):
        down, across = mask[step:] != mask[:-step], mask[:, step:] != mask[:, :-step]
        border[step:] |= down
        border[:-step] |= down
        border[:, step:] |= across
        border[:, :-step] |= across
    return border
