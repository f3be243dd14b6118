"""Masks as PNG files of numbers that look like their drawings, and drawings as files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.data.annotated.masks.codes import IGNORE, MOST_CLASSES
from effnet.errors import DataError
from effnet.system.files import written_whole
from effnet.system.records import to_data
from effnet.tasks.drawing.colours import BLACK, WHITE, Colour, colours, hex_of
from effnet.tasks.drawing.regions import background_of

_QUALITY = 92


def write_mask(mask: np.ndarray, folder: Path, *, name: str, class_names: Sequence[str]) -> Path:
    """Write the class of each pixel, [height, width], into NAME.png, and return its path.

    The file holds the numbers of the classes, 255 for ignored pixels, and a palette: the colours of drawings, black for
    the class called background. `name` is one of `effnet.tasks.writing.names.output_names`. Raises DataError if the
    mask holds other numbers.
    """
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = mask_image(mask, class_names)
    with written_whole(path) as beside:
        image.save(beside, format="PNG")
    return path


def mask_image(mask: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """Return the class of each pixel, [height, width], as an image of numbers with the palette of `write_mask`."""
    if mask.ndim != 2 or not mask.size:
        raise DataError(f"a mask must be [height, width]; got {list(mask.shape)}")
    others = (mask < 0) | ((mask >= len(class_names)) & (mask != IGNORE))
    if others.any():
        raise DataError(f"the classes of pixels must be below {len(class_names)}, or {IGNORE}; got {mask[others][0]}")
    image = Image.fromarray(mask.astype(np.uint8))
    palette = list(palette_of(class_names))
    palette += [BLACK] * (IGNORE - len(palette)) + [WHITE]
    image.putpalette([value for colour in palette for value in colour])
    return image


def write_mask_classes(class_names: Sequence[str], folder: Path) -> None:
    """Write classes.json, the number, name and colour of each class of the masks, into an existing folder."""
    palette = palette_of(class_names)
    classes = [
        {"value": i, "name": name, "colour": hex_of(colour)}
        for i, (name, colour) in enumerate(zip(class_names, palette, strict=True))
    ]
    text = json.dumps(to_data({"classes": classes, "ignored": IGNORE}), ensure_ascii=False, indent=1)
    with written_whole(folder / "classes.json") as beside:
        beside.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_drawing(image: np.ndarray, path: Path) -> None:
    """Write a drawing, uint8 [height, width, 3], as PNG or, if the path ends in .jpg, as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            Image.fromarray(image).save(beside, format="JPEG", quality=_QUALITY)
        else:
            Image.fromarray(image).save(beside, format="PNG")


def palette_of(class_names: Sequence[str]) -> tuple[Colour, ...]:
    """Return the colour of each class in masks: black for the class called background, else that of drawings."""
    if len(class_names) > MOST_CLASSES:
        raise DataError(f"masks must have at most {MOST_CLASSES} classes; got {len(class_names)}")
    background = background_of(class_names)
    return tuple(BLACK if i == background else colour for i, colour in enumerate(colours(len(class_names))))
