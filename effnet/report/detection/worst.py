"""The worst images of a detector for a page: what is there beside what was detected."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image

from effnet.measurement.detection.record import BoxRow, WorstImage
from effnet.report.explanation.overlay import as_rgb, data_url
from effnet.tasks.drawing.boxes import Mark, class_texts, draw_marks, shown_score
from effnet.tasks.drawing.colours import BLUE, VERMILLION, Colour

SIDE = 480
"""The longer side of an image on a page, in pixels."""

_GREY: Colour = (150, 150, 150)


def worst_shown(
    worst: Sequence[WorstImage], images: Iterable[np.ndarray], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the worst images with drawings of their true and detected boxes, as far as there are images.

    `images` are uint8 [height, width, channels] in the same order, upright, of any scale. Blue is right, vermillion
    wrong or missed, grey does not count.
    """
    # A report read back from its file has no images; the text is still worth showing.
    shown = []
    for each, image in zip_longest(worst, images):
        if each is None:
            break
        row = {"source": each.source, "right": each.right, "wrong": each.wrong, "missed": each.missed}
        shown.append(
            row | {"true": None, "found": None} | (_drawn(each, image, class_names) if image is not None else {})
        )
    return shown


def at_most(image: np.ndarray, *, side: int) -> np.ndarray:
    """Return an image, uint8 [height, width, channels], in RGB, shrunk so that its longer side is at most `side`."""
    canvas = Image.fromarray(np.ascontiguousarray(as_rgb(image if image.ndim == 3 else image[..., None])))
    canvas.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(canvas)


def _drawn(worst: WorstImage, image: np.ndarray, class_names: Sequence[str]) -> dict[str, str]:
    small = at_most(image, side=SIDE)
    scale = small.shape[1] / worst.width, small.shape[0] / worst.height
    names = class_texts(class_names)
    named = len(names) > 1
    true = [_mark(row, scale, names[row.label] if named else "") for row in worst.objects]
    found = [
        _mark(row, scale, f"{names[row.label]} {shown_score(row.score or 0)}" if named else shown_score(row.score or 0))
        for row in worst.found
    ]
    return {"true": data_url(draw_marks(small, true)), "found": data_url(draw_marks(small, found))}


def _mark(row: BoxRow, scale: tuple[float, float], text: str) -> Mark:
    left, top, right, bottom = row.box
    return Mark(
        box=(left * scale[0], top * scale[1], right * scale[0], bottom * scale[1]),
        colour=_GREY if row.right is None else BLUE if row.right else VERMILLION,
        text=text,
        strong=row.right is False,
    )
