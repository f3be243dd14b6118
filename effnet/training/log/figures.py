"""Figures for TensorBoard, drawn with numpy and Pillow: a sheet of a batch's images, a confusion matrix."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 2
# Small images are enlarged until a sheet is about this wide, in pixels, or by at most this factor.
_SHEET_WIDTH, _MOST_ZOOM = 640, 8
_NAMED_CLASSES, _COUNTED_CLASSES, _MATRIX_SIDE = 40, 20, 640
_LONGEST_NAME, _TEXT_SIZE = 18, 12
_INK = (34, 48, 60)
# Blue for right answers and vermillion for wrong ones, of Okabe and Ito's palette. Source: https://jfly.uni-koeln.de/color/
_RIGHT, _WRONG = np.array((0, 114, 178)), np.array((213, 94, 0))


def image_sheet(images: np.ndarray, *, columns: int = 8) -> np.ndarray:
    """Return images uint8 [N, H, W, C] side by side on white, uint8 [height, width, 3].

    The first three channels are shown or, of fewer than three, the first in grey; small images are enlarged.
    """
    shown = images[..., :3] if images.shape[3] >= 3 else np.repeat(images[..., :1], 3, axis=3)
    number, height, width = shown.shape[:3]
    columns = min(columns, number)
    zoom = int(np.clip(_SHEET_WIDTH // (columns * width), 1, _MOST_ZOOM))
    shown = shown.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = height * zoom + _GAP, width * zoom + _GAP
    rows = -(-number // columns)
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), 255, np.uint8)
    for index, image in enumerate(shown):
        top, left = _GAP + height * (index // columns), _GAP + width * (index % columns)
        sheet[top : top + height - _GAP, left : left + width - _GAP] = image
    return sheet


def confusion_image(counts: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return a confusion matrix [true, predicted] of counts as an image, uint8 [height, width, 3].

    Shades are shares of a true class. Up to 20 classes the cells show counts, and up to 40 the axes show class names.
    """
    number = len(counts)
    cell = max(4, min(48, _MATRIX_SIDE // number))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # One wrong answer among hundreds must still be seen.
    strength = np.where(counts > 0, 0.15 + 0.85 * shares, 0)[..., None]
    colours = np.where(np.eye(number, dtype=bool)[..., None], _RIGHT, _WRONG)
    cells = (255 + strength * (colours - 255)).round().astype(np.uint8)
    matrix = Image.fromarray(cells.repeat(cell, axis=0).repeat(cell, axis=1))
    if number <= _COUNTED_CLASSES:
        _write_counts_(matrix, counts, shares, cell=cell)
    return np.asarray(_framed(matrix, class_names if number <= _NAMED_CLASSES else (), cell=cell))


def _write_counts_(matrix: Image.Image, counts: np.ndarray, shares: np.ndarray, *, cell: int) -> None:
    draw, font = ImageDraw.Draw(matrix), ImageFont.load_default(_TEXT_SIZE)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else _INK
        place = ((column + 0.5) * cell, (row + 0.5) * cell)
        draw.text(place, str(int(counts[row, column])), fill=colour, font=font, anchor="mm")


def _framed(matrix: Image.Image, class_names: Sequence[str], *, cell: int) -> Image.Image:
    """Return the matrix with its labels: the true classes at the left, the predicted ones above."""
    font = ImageFont.load_default(min(_TEXT_SIZE, cell))
    names = [_short(name) for name in class_names]
    longest = max((int(font.getlength(name)) for name in names), default=0)
    title = _TEXT_SIZE + 8
    edge = max(longest, _TEXT_SIZE) + title + 8
    upright = longest + 4 <= cell
    canvas = Image.new("RGB", (edge + matrix.width + 8, edge + matrix.height + 8), "white")
    canvas.paste(matrix, (edge, edge))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((edge - 1, edge - 1, edge + matrix.width, edge + matrix.height), outline=_INK)
    large = ImageFont.load_default(_TEXT_SIZE)
    draw.text((edge + matrix.width / 2, 4), "predicted", fill=_INK, font=large, anchor="mt")
    side = Image.new("RGB", (matrix.height, title), "white")
    ImageDraw.Draw(side).text((matrix.height / 2, 4), "true", fill=_INK, font=large, anchor="mt")
    canvas.paste(side.rotate(90, expand=True), (0, edge))
    above = Image.new("RGB", (longest + 4, matrix.width), "white")
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        draw.text((edge - 5, edge + middle), name, fill=_INK, font=font, anchor="rm")
        if upright:
            draw.text((edge + middle, edge - 5), name, fill=_INK, font=font, anchor="mb")
        else:
            ImageDraw.Draw(above).text((0, middle), name, fill=_INK, font=font, anchor="lm")
    if not upright:  # rotated to the left, lower rows move further right: the order of the columns
        canvas.paste(above.rotate(90, expand=True), (edge, edge - above.width - 2))
    return canvas


def _short(name: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in name)
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"
