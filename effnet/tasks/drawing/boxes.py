"""Boxes drawn over an image, each with a label if there is room: they point at the image and do not hide it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from effnet.data.annotated.record import Annotated
from effnet.tasks.boxes.record import Detections
from effnet.tasks.drawing.colours import Colour, colours, ink_on
from effnet.tasks.drawing.frame import Scale, as_canvas, scale_of, with_legend
from effnet.tasks.drawing.text import readable, text_size, write_text_

# All labels together cover at most this share of an image; with more boxes, a label must not be wider than its box.
_LABELLED, _FEW = 0.12, 12
# A line is at most this part of the shorter side of its box.
_THINNEST = 16

_Place = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A box to draw: left, top, right, bottom in pixels of the image, its colour, and its label, which may be empty.

    If `strong`, its line is twice as wide.
    """

    box: tuple[float, float, float, float]
    colour: Colour
    text: str = ""
    strong: bool = False


def draw_detections(
    image: np.ndarray, found: Detections, class_names: Sequence[str], *, threshold: float = 0.0
) -> np.ndarray:
    """Return an upright image, uint8 [height, width, channels], with the objects of at least the score `threshold`.

    The result is uint8 [height, width, 3], with a legend below it if not every box has room for its label. An image
    under 320 pixels is enlarged by a whole number.
    """
    kept = found.above(threshold)
    order = np.argsort(-kept.scores, kind="stable")
    palette = colours(len(class_names))
    names = class_texts(class_names)
    marks = [
        Mark(
            box=_as_box(kept.boxes[i]),
            colour=palette[int(kept.classes[i])],
            text=f"{names[int(kept.classes[i])]} {shown_score(float(kept.scores[i]))}",
        )
        for i in order.tolist()
    ]
    return draw_marks(image, marks, legend=counted(kept.classes, class_names))


def draw_objects(image: np.ndarray, truth: Annotated, class_names: Sequence[str]) -> np.ndarray:
    """Return an image with its annotated objects, as `draw_detections` does; crowds and difficult ones say so."""
    palette, names = colours(len(class_names)), class_texts(class_names)
    notes = [
        " (crowd)" if crowd else " (difficult)" if difficult else ""
        for crowd, difficult in zip(truth.crowd.tolist(), truth.difficult.tolist(), strict=True)
    ]
    marks = [
        Mark(box=_as_box(box), colour=palette[number], text=names[number] + note)
        for box, number, note in zip(truth.boxes, truth.classes.tolist(), notes, strict=True)
    ]
    return draw_marks(image, marks, legend=counted(truth.classes, class_names))


def draw_marks(image: np.ndarray, marks: Sequence[Mark], *, legend: Sequence[tuple[Colour, str]] = ()) -> np.ndarray:
    """Return an image with boxes, uint8 [height, width, 3]; the first ones get their labels first.

    The legend is below the image if a label has no room.
    """
    height, width = image.shape[:2]
    scale = scale_of(height, width)
    canvas = as_canvas(image, scale)
    draw = ImageDraw.Draw(canvas)
    boxes = [_pixels(mark.box, scale.factor, canvas.size) for mark in marks]
    # Large boxes lie below small ones.
    for i in sorted(range(len(marks)), key=lambda i: -_area(boxes[i])):
        _draw_box_(draw, boxes[i], marks[i], scale=scale)
    labels = _placed(boxes, marks, scale=scale, size=canvas.size)
    for i, place in labels.items():
        draw.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=marks[i].colour)
        pad = _pad(scale)
        write_text_(
            draw, marks[i].text, left=place[0] + pad, top=place[1], size=scale.text, ink=ink_on(marks[i].colour)
        )
    some_lack = any(mark.text and i not in labels for i, mark in enumerate(marks))
    return np.asarray(with_legend(canvas, legend if some_lack else (), scale=scale))


def class_texts(class_names: Sequence[str]) -> list[str]:
    """Return the names of classes as they can be drawn; a name that no font can draw is "class 3", from 0."""
    return [readable(name, instead=f"class {i}") for i, name in enumerate(class_names)]


def counted(classes: np.ndarray, class_names: Sequence[str]) -> list[tuple[Colour, str]]:
    """Return the legend of objects: the colour of each class that occurs, its name and number of objects."""
    counts, palette, names = np.bincount(classes, minlength=1), colours(len(class_names)), class_texts(class_names)
    return [(palette[i], f"{names[i]}: {counts[i]:,}") for i in np.flatnonzero(counts).tolist()]


def shown_score(score: float) -> str:
    """Return a score with two digits; one below 1 is never 1.00."""
    return f"{min(score, 0.99) if score < 1 else score:.2f}"


def _as_box(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, box)
    return left, top, right, bottom


def _pixels(box: tuple[float, float, float, float], factor: int, size: tuple[int, int]) -> _Place:
    """Return the first and last columns and rows of a box in a drawing, which it does not leave."""
    left, top = (min(max(round(v * factor), 0), side - 1) for v, side in zip(box[:2], size, strict=True))
    right, bottom = (min(max(round(v * factor) - 1, 0), side - 1) for v, side in zip(box[2:], size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _area(place: _Place) -> int:
    return (place[2] - place[0] + 1) * (place[3] - place[1] + 1)


def _draw_box_(draw: ImageDraw.ImageDraw, place: _Place, mark: Mark, *, scale: Scale) -> None:
    shorter = min(place[2] - place[0], place[3] - place[1]) + 1
    line = max(1, min(scale.line * (2 if mark.strong else 1), shorter // _THINNEST))
    if line > 1:
        # A thin line inside makes the colour visible on ground of the same colour.
        inner = (place[0] + line, place[1] + line, place[2] - line, place[3] - line)
        if inner[2] > inner[0] and inner[3] > inner[1]:
            draw.rectangle(inner, outline=ink_on(mark.colour), width=max(1, line // 3))
    draw.rectangle(place, outline=mark.colour, width=line)


def _pad(scale: Scale) -> int:
    return max(2, scale.text // 5)


def _placed(
    boxes: Sequence[_Place], marks: Sequence[Mark], *, scale: Scale, size: tuple[int, int]
) -> dict[int, _Place]:
    """Return the places of labels, by the number of their mark: none overlaps another."""
    room = _LABELLED * size[0] * size[1]
    placed: dict[int, _Place] = {}
    for i, (box, mark) in enumerate(zip(boxes, marks, strict=True)):
        if not mark.text:
            continue
        width, height = text_size(mark.text, scale.text)
        width += 2 * _pad(scale)
        if len(marks) > _FEW and width > 1.2 * (box[2] - box[0] + 1):
            continue
        if width * height > room or width > size[0]:
            continue
        others = np.array(list(placed.values()), np.int64).reshape(-1, 4)
        place = next((p for p in _around(box, width, height) if _is_free(p, others, size)), None)
        if place is not None:
            placed[i] = place
            room -= width * height
    # A few labels among many boxes would say that these are special.
    return placed if len(marks) <= _FEW or 2 * len(placed) >= len(marks) else {}


def _around(box: _Place, width: int, height: int) -> list[_Place]:
    """Return the places of a label beside a box, the best first: above it, below it, then inside."""
    left, right = box[0], box[2] + 1 - width
    corners = [
        (left, box[1] - height),
        (right, box[1] - height),
        (left, box[3] + 1),
        (right, box[3] + 1),
        (left, box[1]),
        (left, box[3] + 1 - height),
    ]
    return [(x, y, x + width, y + height) for x, y in corners]


def _is_free(place: _Place, others: np.ndarray, size: tuple[int, int]) -> bool:
    if place[0] < 0 or place[1] < 0 or place[2] > size[0] or place[3] > size[1]:
        return False
    apart = (
        (others[:, 0] >= place[2])
        | (others[:, 2] <= place[0])
        | (others[:, 1] >= place[3])
        | (others[:, 3] <= place[1])
    )
    return bool(apart.all())
