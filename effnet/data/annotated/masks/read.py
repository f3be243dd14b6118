"""Read masks of classes: files of numbers or of colours, and the polygons of annotated objects."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.annotated.masks.codes import IGNORE, MOST_CLASSES, NEIGHBOURS, MaskCode, read_codes
from effnet.data.annotated.masks.shapes import pixels_of
from effnet.data.annotated.record import Annotated
from effnet.data.annotated.upright import turn_mask
from effnet.data.images.decode import ImageHeader
from effnet.errors import DataError
from effnet.system.text import printable

_UNKNOWN = 254

# JPEG changes colours by some steps; more than a third of the way to the next colour would be a guess.
_NEAR = 24.0
# Pixels between two classes may lie so far from the next known one: antialiased edges and JPEG's blocks.
_EDGE = 2
# If more of a mask is between classes, or more is unknown, its colours are others than those of the table.
_MOST_SNAPPED, _MOST_UNKNOWN = 0.1, 0.005


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """The class of each pixel, uint8 [height, width], IGNORE if none.

    `snapped` pixels had codes between two classes; `unknown` ones, which are IGNORE, have the code of none, most of
    them `unknown_code`.
    """

    classes: np.ndarray
    snapped: int = 0
    unknown: int = 0
    unknown_code: str = ""


def read_mask(path: str, code: MaskCode, *, image: ImageHeader) -> Mask:
    """Return the mask of an image, whose header is given.

    A mask of the image as stored, without its EXIF orientation, is turned with it. Pixels between two classes, as
    antialiased edges and JPEG have, get the class of an adjacent one, and count as `snapped`. Up to 0.5 % of pixels may
    be of no class: they are ignored, and count as `unknown`.

    Raises:
        DataError: the file cannot be decoded, has another size, or more than 0.5 % of it is of no class.
    """
    codes = read_codes(path, code.kind)
    if codes.shape == (image.width, image.height) != (image.height, image.width) and image.orientation >= 5:
        codes = turn_mask(codes, image)
    if codes.shape != (image.height, image.width):
        raise DataError(
            f"{printable(path)}: a mask must have its image's size, {image.width} x {image.height}; it has "
            f"{codes.shape[1]} x {codes.shape[0]}"
        )
    known = _table(code)
    classes = known[np.minimum(codes, len(known) - 1)]
    unknown = classes == _UNKNOWN
    count = int(np.count_nonzero(unknown))
    if not count:
        return Mask(classes=classes)
    classes = _snapped(classes, codes, code)
    left = classes == _UNKNOWN
    if not left.any():
        return Mask(classes=classes, snapped=count)
    values, counts = np.unique(codes[left], return_counts=True)
    most = code.shown(int(values[counts.argmax()]))
    if counts.sum() > _MOST_UNKNOWN * classes.size:
        raise DataError(
            f"{printable(path)}: every {'colour' if code.kind == 'colour' else 'number'} of a mask must be that of a "
            f"class; {most} is none ({counts.max():,} pixels, {count:,} of "
            f"{classes.size:,} are unknown). Add it to the classes, or to those ignored"
        )
    classes[left] = IGNORE
    return Mask(classes=classes, snapped=count - int(counts.sum()), unknown=int(counts.sum()), unknown_code=most)


def mask_sentences(masks: Mapping[str, Mask]) -> list[str]:
    """Return sentences on the masks, by path, that have pixels between classes or of no class."""
    said = []
    snapped = [path for path, mask in masks.items() if mask.snapped]
    if snapped:
        pixels = sum(mask.snapped for mask in masks.values())
        said.append(
            f"{_masks(snapped)} {pixels:,} pixels between two classes, as antialiased edges and JPEG have; each got "
            f"the class of an adjacent one. The first: {printable(snapped[0])}. "
            "Save masks as PNG, drawn without antialiasing."
        )
    unknown = [path for path, mask in masks.items() if mask.unknown]
    if unknown:
        pixels = sum(mask.unknown for mask in masks.values())
        said.append(
            f"{_masks(unknown)} {pixels:,} pixels of no class, which are ignored. The first: {printable(unknown[0])}, "
            f"with {masks[unknown[0]].unknown_code}. Add what they mean to the classes, or to those ignored."
        )
    return said


def _masks(paths: Sequence[str]) -> str:
    return "1 mask has" if len(paths) == 1 else f"{len(paths):,} masks have"


def count_pixels(masks: Sequence[np.ndarray], *, num_classes: int) -> np.ndarray:
    """Return the number of pixels of each class, int64 [classes + 1], the last of those ignored."""
    counts = np.zeros(256, np.int64)
    for mask in masks:
        counts += np.bincount(mask.ravel(), minlength=256)
    if counts[num_classes:IGNORE].any():
        raise DataError(f"the classes of pixels must be below {num_classes}, or {IGNORE}")
    return np.append(counts[:num_classes], counts[IGNORE])


def draw_mask(image: Annotated, *, background: bool = True) -> np.ndarray:
    """Return the class of each pixel, uint8 [height, width], from the masks of an image's objects.

    Smaller objects lie above larger ones. With `background`, class 0 is where no object is, and the classes of objects
    follow; without, such pixels are IGNORE. Crowds, and the boxes of objects without a mask, are IGNORE.
    """
    drawn = np.full((image.height, image.width), 0 if background else IGNORE, np.uint8)
    if len(image.classes) and image.classes.max() + background > MOST_CLASSES:
        raise DataError(f"masks must have at most {MOST_CLASSES} classes; got {image.classes.max() + 1 + background}")
    for i in np.argsort(-image.areas, kind="stable").tolist():
        shape = image.shapes[i] if image.shapes else None
        value = IGNORE if image.crowd[i] or shape is None else image.classes[i] + background
        if shape is None:
            left, top, right, bottom = image.boxes[i]
            drawn[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = value
        else:
            drawn[pixels_of(shape, height=image.height, width=image.width)] = value
    return drawn


@functools.lru_cache(maxsize=4)
def _table(code: MaskCode) -> np.ndarray:
    """Return the class of every code, uint8; the last entry is unknown."""
    table = np.full((2**24 if code.kind == "colour" else 2**16) + 1, _UNKNOWN, np.uint8)
    table[list(code.codes)] = np.arange(len(code.codes))
    table[list(code.ignored)] = IGNORE
    return table


def _parts(codes: np.ndarray, code: MaskCode) -> np.ndarray:
    """Return the components of codes, float32 [n, 1 or 3]."""
    if code.kind == "index":
        return codes.astype(np.float32)[:, None]
    return np.stack((codes >> 16, codes >> 8 & 255, codes & 255), axis=1).astype(np.float32)


def _snapped(classes: np.ndarray, codes: np.ndarray, code: MaskCode) -> np.ndarray:
    """Return the classes with those that are unknown taken from the nearest colour or an adjacent pixel."""
    table = _parts(np.array((*code.codes, *code.ignored)), code)
    values = np.array([*range(len(code.codes)), *[IGNORE] * len(code.ignored)], np.uint8)
    if code.kind == "index" and not _may_be_between(codes[classes == _UNKNOWN], code):
        return classes
    classes = classes.copy()
    if code.kind == "colour" and len(table) > 1:
        apart = np.abs(table[:, None] - table).max(2)
        near = min(_NEAR, float(apart[apart > 0].min()) / 3)
        different, inverse = np.unique(codes[classes == _UNKNOWN], return_inverse=True)
        if len(different) <= 2**16:
            distance = np.abs(_parts(different, code)[:, None] - table).max(2)
            nearest = np.where(distance.min(1) <= near, values[distance.argmin(1)], _UNKNOWN)
            classes[classes == _UNKNOWN] = nearest[inverse.ravel()]
    if np.count_nonzero(classes == _UNKNOWN) > _MOST_SNAPPED * classes.size:
        return classes
    for _ in range(_EDGE):
        classes = _filled(classes, codes, code, table, values)
    return classes


def _may_be_between(unknown: np.ndarray, code: MaskCode) -> bool:
    """Return whether numbers can be mixtures of those of classes: not if these are 0, 1, 2 ..."""
    known = np.sort(np.array(code.codes))
    gaps = np.diff(known) > 1
    place = np.searchsorted(known, unknown)
    inside = (place > 0) & (place < len(known))
    return bool(inside.all() and gaps[place - 1].all()) if len(known) > 1 else False


def _filled(
    classes: np.ndarray, codes: np.ndarray, code: MaskCode, table: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Return the classes with unknown pixels taken from the adjacent one whose code is the most similar."""
    rows, columns = np.nonzero(classes == _UNKNOWN)
    if not len(rows):
        return classes
    own = _parts(codes[rows, columns], code)
    of_class = np.zeros((256, table.shape[1]), np.float32)
    of_class[values[::-1]] = table[::-1]
    framed = np.pad(classes, 1, constant_values=_UNKNOWN)
    around = np.stack([framed[rows + 1 + down, columns + 1 + across] for down, across in NEIGHBOURS], axis=1)
    distance = np.abs(of_class[around] - own[:, None]).sum(2)
    distance[around == _UNKNOWN] = np.inf
    filled = classes.copy()
    filled[rows, columns] = around[np.arange(len(rows)), distance.argmin(1)]
    return filled
