"""Images with more than 8 bits: the type of their values, and the bits that Pillow drops."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from effnet.data.view.value_range import ValueRange, to_uint8

ORDINARY = "uint8"

# Pillow keeps the upper byte of 16-bit colours. With the opposite byte order it reads the lower one instead.
_COLOURS = ("RGB;16", "RGBA;16", "RGBX;16")
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER = {"B": "L", "L": "B", "N": "B" if _NATIVE == "L" else "L"}
_GREY_ALPHA = "LA;16B"
_TIFF_SIGNED = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deep:
    """How values of the type `kind` are mapped to uint8; `second` holds the lower bytes of colours, once loaded.

    A second image of grey and alpha holds both bytes of each channel in turn.
    """

    kind: str
    value_range: ValueRange | None
    second: Image.Image | None = None


def stored_kind(image: Any) -> str:
    """Return the type of the values of an opened image: "uint8" also if the file declares their range itself.

    The others are uint12, uint16, int16, uint32, int32 and float32, which need a range.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return "uint12" if _bits(image) == 12 else "uint16"
    if mode == "F":
        return "float32"
    if mode == "I":
        return _whole_kind(image)
    return ORDINARY if _second_tiles(image) is None else "uint16"


def _whole_kind(image: Any) -> str:
    if image.format == "PNG":
        return "uint16"
    if image.format == "PPM":  # Pillow scales values with another maximum to 16 bits
        largest = [tile[3][1] for tile in getattr(image, "tile", ()) if isinstance(tile[3], tuple)]
        return "uint16" if largest in ([], [65535]) else ORDINARY
    if image.format == "TIFF":
        signed = _first(image, TiffImagePlugin.SAMPLEFORMAT) == _TIFF_SIGNED
        return f"{'' if signed else 'u'}int{16 if _bits(image) == 16 else 32}"
    return "int32"


def _bits(image: Any) -> int | None:
    return _first(image, TiffImagePlugin.BITSPERSAMPLE) if image.format == "TIFF" else None


def _first(image: Any, tag: int) -> int | None:
    value = image.tag_v2.get(tag)
    return value[0] if isinstance(value, tuple) and value else value


def needs_second(image: Any) -> bool:
    """Return whether an opened image has 16-bit colours, whose lower bytes must be loaded separately."""
    return image.mode not in ("I", "F") and not image.mode.startswith("I;16") and stored_kind(image) != ORDINARY


def take_second_(image: Any) -> None:
    """Make an opened image for which `needs_second` holds load the lower bytes, or all bytes of grey and alpha."""
    tiles = _second_tiles(image)
    image.info[_GREY_ALPHA] = tiles is not None and bool(tiles) and tiles[0][3] == "RGBA"
    image.tile = tiles


def _second_tiles(image: Any) -> list[Any] | None:
    """Return the tiles that load the lower bytes of an opened image, or None if it has no 16-bit colours."""
    found = []
    for decoder, box, offset, args in getattr(image, "tile", ()):
        raw = args if isinstance(args, str) else args[0] if isinstance(args, tuple) and args else ""
        if raw == _GREY_ALPHA:
            other = "RGBA"
        elif isinstance(raw, str) and raw[:-1] in _COLOURS:
            other = raw[:-1] + _OTHER[raw[-1]]
        else:
            return None
        found.append(ImageFile._Tile(decoder, box, offset, other if isinstance(args, str) else (other, *args[1:])))
    return found or None


def numbers(image: Image.Image, deep: Deep, second: Image.Image | None = None) -> np.ndarray:
    """Return the values of a loaded image, or of a piece of it and its `second`: [H, W] or [H, W, colours]."""
    if second is not None:
        upper, lower = np.asarray(image), np.asarray(second)
        if _is_grey_alpha(deep):
            return (lower[..., 0].astype(np.uint16) << 8) | lower[..., 1]
        return (upper[..., :3].astype(np.uint16) << 8) | lower[..., :3]
    values = np.asarray(image)
    return values.view(np.uint32) if deep.kind == "uint32" and values.dtype == np.int32 else values


def _is_grey_alpha(deep: Deep) -> bool:
    return deep.second is not None and deep.second.info.get(_GREY_ALPHA) is True


def in_eight_bits(image: Image.Image, deep: Deep, second: Image.Image | None = None) -> Image.Image:
    """Return a loaded image of more than 8 bits, or a piece of it, in an 8-bit mode; alpha keeps its upper byte."""
    if second is None and image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    mapped = to_uint8(numbers(image, deep, second), deep.kind, deep.value_range)
    if mapped.ndim == 2 and second is None:
        return Image.fromarray(mapped)
    if mapped.ndim == 2:
        mapped = np.repeat(mapped[..., None], 3, axis=2)
    if image.mode == "RGBA":
        mapped = np.concatenate((mapped, np.asarray(image)[..., 3:]), axis=2)
    return Image.fromarray(np.ascontiguousarray(mapped))


def pieces_of(image: Image.Image, deep: Deep, boxes: list[tuple[int, int, int, int]]) -> Iterator[np.ndarray]:
    """Yield the values of a loaded image in pieces."""
    for box in boxes:
        yield numbers(image.crop(box), deep, deep.second.crop(box) if deep.second is not None else None)
