"""The frame of a drawing: how large lines and letters are on an image, and the legend below it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from effnet.errors import DataError
from effnet.tasks.drawing.colours import BLACK, WHITE, Colour
from effnet.tasks.drawing.text import fitted, text_size, write_text_

# Images smaller than this are enlarged, so that letters are not as large as objects.
_LEAST_SIDE = 320
_LETTERS, _SMALLEST, _LARGEST = 48, 11, 72
_LINE = 260
# The legend of a thousand classes would be larger than its image.
_MOST_ENTRIES = 40
_INK: Colour = (34, 48, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The sizes of a drawing: `factor` is how often an image is enlarged, `text` and `line` are pixels."""

    factor: int
    text: int
    line: int


def scale_of(height: int, width: int) -> Scale:
    """Return the sizes of a drawing on an image; small ones are enlarged by a whole number."""
    factor = max(1, _LEAST_SIDE // max(height, width))
    side = factor * (height + width) / 2
    text = round(min(max(side / _LETTERS, _SMALLEST), _LARGEST))
    return Scale(factor=factor, text=text, line=max(1, round(side / _LINE)))


def as_canvas(image: np.ndarray, scale: Scale) -> Image.Image:
    """Return an image, uint8 [height, width, channels] or [height, width], as one to draw on, in RGB.

    It has the first three channels, or the first. Raises DataError for anything else.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise DataError(
            f"an image to draw on must be uint8 [height, width, channels]; got {image.dtype} {list(image.shape)}"
        )
    bands = image[..., None] if image.ndim == 2 else image
    rgb = bands[..., :3] if bands.shape[2] >= 3 else np.repeat(bands[..., :1], 3, axis=2)
    canvas = Image.fromarray(np.ascontiguousarray(rgb))
    if scale.factor > 1:
        canvas = canvas.resize((canvas.width * scale.factor, canvas.height * scale.factor), Image.Resampling.NEAREST)
    return canvas


def with_legend(canvas: Image.Image, entries: Sequence[tuple[Colour, str]], *, scale: Scale) -> Image.Image:
    """Return an image above its legend: a square of each colour, and what it means. Without entries, the image."""
    if not entries:
        return canvas
    line = round(scale.text * 1.3)
    gap, square = round(line * 0.4), round(line * 0.75)
    listed = [
        (colour, fitted(text, width=canvas.width - 4 * gap - square, size=scale.text)) for colour, text in entries
    ]
    if len(listed) > _MOST_ENTRIES:
        listed = [*listed[:_MOST_ENTRIES], (WHITE, f"and {len(entries) - _MOST_ENTRIES} more")]
    places, left, row = [], gap, 0
    for colour, text in listed:
        width = square + gap + text_size(text, scale.text)[0]
        if left > gap and left + width > canvas.width - gap:
            left, row = gap, row + 1
        places.append((left, row, colour, text))
        left += width + 2 * gap
    height = (row + 1) * (line + gap // 2) + gap
    whole = Image.new("RGB", (canvas.width, canvas.height + height), WHITE)
    whole.paste(canvas, (0, 0))
    draw = ImageDraw.Draw(whole)
    for left, row, colour, text in places:
        top = canvas.height + gap // 2 + row * (line + gap // 2)
        down = top + (line - square) // 2
        if colour != WHITE:
            draw.rectangle((left, down, left + square - 1, down + square - 1), fill=colour, outline=BLACK)
        write_text_(draw, text, left=left + square + gap, top=top, size=scale.text, ink=_INK)
    return whole
