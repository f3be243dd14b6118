"""Convert a Pillow image to a uint8 array, in pieces, so that nothing large is held twice."""

import numpy as np
from PIL import Image

from effnet.data.images.deep import Deep, in_eight_bits
from effnet.errors import ImageError

# Pixels converted at a time: about 8 MB in the worst mode.
_PIECE_PIXELS = 2**18
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

Box = tuple[int, int, int, int]
"""Left, upper, right, lower in whole pixels."""


def to_pixels(
    image: Image.Image, channels: int, *, orientation: int = 1, box: Box | None = None, deep: Deep | None = None
) -> np.ndarray:
    """Return uint8 [height, width, channels] of a loaded image or of a box in it, turned upright.

    `deep` describes the values of an image of more than 8 bits. Raises ImageError for numbers of channels other than
    1, 3 and 4, and for values whose range is not known.
    """
    if channels not in (1, 3, 4):
        raise ImageError(
            f"it must have {channels} channels but is a {image.format} image with {stored_channels(image)}; "
            f"store {channels} channels in a .npy file of uint8 [height, width, {channels}]"
        )
    left, top, right, bottom = whole = box or (0, 0, *image.size)
    width, height = right - left, bottom - top
    if width * height <= _PIECE_PIXELS:
        return upright(_convert(_piece(image, whole, deep), channels), orientation)
    shape = (width, height) if orientation >= 5 else (height, width)
    result = np.empty((*shape, channels), np.uint8)
    stored = _as_stored(result, orientation)
    for x0, y0, x1, y1 in pieces(whole):
        piece = _piece(image, (x0, y0, x1, y1), deep)
        stored[y0 - top : y1 - top, x0 - left : x1 - left] = _convert(piece, channels)
    return result


def _piece(image: Image.Image, box: Box, deep: Deep | None) -> Image.Image:
    piece = image if box == (0, 0, *image.size) else image.crop(box)
    if deep is None:
        return piece
    return in_eight_bits(piece, deep, None if deep.second is None else deep.second.crop(box))


def stored_channels(image: Image.Image) -> int:
    """Return the number of channels of the file; palette colours count as three, or four with transparency."""
    if image.mode in ("P", "PA"):
        return 4 if image.mode == "PA" or "transparency" in image.info else 3
    return len(image.getbands())


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return the image [H, W, C] upright, for EXIF's orientation 1 to 8; 5 to 8 swap the axes.

    Source: EXIF 2.32, tag 0x0112.
    """
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(_mirrored(image, orientation))


def _as_stored(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of the upright image in the file's orientation: the inverse of `upright`."""
    image = _mirrored(image, orientation)
    return image.transpose(1, 0, 2) if orientation >= 5 else image


def _mirrored(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def pieces(box: Box) -> list[Box]:
    """Return the boxes, of a quarter of a million pixels at most, in which an image is converted."""
    left, top, right, bottom = box
    across = min(right - left, _PIECE_PIXELS)
    down = _PIECE_PIXELS // across
    return [
        (x, y, min(x + across, right), min(y + down, bottom))
        for y in range(top, bottom, down)
        for x in range(left, right, across)
    ]


def over_white(image: Image.Image) -> Image.Image:
    """Return an image with alpha composited over white, mode RGBA."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def _convert(image: Image.Image, channels: int) -> np.ndarray:
    if image.mode == "I":  # a PGM, which Pillow scales to 16 bits by the largest value in its header
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    if channels == 4:
        return np.array(image.convert("RGBA"))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = over_white(image)
    if channels == 3:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))[..., None]
