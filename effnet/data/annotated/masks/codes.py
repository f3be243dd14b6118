"""The codes of masks: numbers or colours, as files hold them and as tables name them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from effnet.data.annotated.upright import turn_mask
from effnet.data.images.decode import ImageHeader, image_error
from effnet.data.images.limits import ROOM
from effnet.data.images.opening import decoding_bytes, load_image, open_image, open_stream, orientation_of
from effnet.errors import DataError, ImageError
from effnet.system.text import printable

IGNORE = 255
"""The class of pixels that count nowhere: unlabelled, borders, crowds."""

MOST_CLASSES = 254
"""One byte holds the class of a pixel, besides IGNORE and one internal value."""

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""The pixels around one, as rows down and columns across."""

Kind = Literal["index", "colour"]

# Greys below this are rather the numbers of classes than their colours.
_DARK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCode:
    """How masks are written: `codes` are the numbers of the classes or, if `kind` is "colour", 0xRRGGBB.

    `ignored` are codes of pixels that count nowhere. Raises DataError if codes are used twice.
    """

    kind: Literal["index", "colour"]
    class_names: tuple[str, ...]
    codes: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.class_names) or not 0 < len(self.codes) <= MOST_CLASSES:
            raise DataError(
                f"masks must have 1 to {MOST_CLASSES} classes, each with a code; got {len(self.class_names)} classes "
                f"and {len(self.codes)} codes"
            )
        codes = (*self.codes, *self.ignored)
        if len(set(codes)) < len(codes):
            twice = next(code for code in codes if codes.count(code) > 1)
            raise DataError(f"the codes of masks must differ; {self.shown(twice)} is used twice")
        most = 2**24 if self.kind == "colour" else 2**16
        if min(codes) < 0 or max(codes) >= most:
            raise DataError(f"the codes of masks must be from 0 to {most - 1:,}; got {min(codes)} to {max(codes)}")

    def shown(self, code: int) -> str:
        """Return a code as people write it: #3C1098, or a number."""
        return f"#{code:06X}" if self.kind == "colour" else str(code)


def colour_of(text: str) -> int:
    """Return the code of a colour such as "#3C1098" or "60,16,152"; raise DataError for other text."""
    digits = text.strip().lstrip("#")
    try:
        if "," in digits:
            red, green, blue = (int(part) for part in digits.split(","))
            if max(red, green, blue) <= 255 and min(red, green, blue) >= 0:
                return red << 16 | green << 8 | blue
        elif len(digits) == 6:
            return int(digits, 16)
    except ValueError:
        pass
    raise DataError(f"a colour must be like #3C1098 or 60,16,152; got {text!r}")


def read_codes(path: str, kind: Kind) -> np.ndarray:
    """Return the codes of a mask file as stored, int32 [height, width], upright by its own EXIF orientation.

    Raises DataError if the file cannot be decoded or, for numbers, has colours.
    """
    try:
        with open_stream(path) as stream, open_image(stream) as image:
            with ROOM.taken(decoding_bytes(image, stream)):
                load_image(image)
                shown = image.convert("RGB") if kind == "colour" else image
                values = np.asarray(shown, None if kind == "index" else np.int32)
            orientation = orientation_of(image)
            mode = image.mode
    except Exception as error:  # Pillow's plugins raise nearly anything for a damaged file
        raise image_error(path, error) from error
    if kind == "colour":
        values = values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]
    elif values.ndim == 3:
        colours = values[..., : 1 if mode == "LA" else 3]
        if (colours != colours[..., :1]).any():
            raise ImageError(f"{printable(path)}: a mask of numbers must be grey or have a palette; it has colours")
        values = colours[..., 0]
    if values.dtype.kind == "f":
        raise ImageError(f"{printable(path)}: a mask must hold whole numbers; it holds real numbers")
    if values.size and (values.min() < 0 or values.max() >= 2**24):
        raise ImageError(f"{printable(path)}: the numbers of a mask must be from 0 to 65535")
    height, width = values.shape[::-1] if orientation >= 5 else values.shape
    return turn_mask(values.astype(np.int32), _header(width, height, orientation))


def discover_code(paths: Sequence[str], *, class_names: Sequence[str] = ()) -> MaskCode:
    """Return the code of masks without a table: the values that fill areas, not only edges, in any of them.

    Numbers are assumed unless a mask has colours. Of several numbers, 255 is ignored, as Pascal VOC does, also if it
    only draws lines; 0 and 255 alone are two classes. `class_names` belong to the codes in ascending order.

    Raises:
        DataError: there are more than 254 codes, names do not match them, or some masks have numbers, others colours.
    """
    kind: Kind = "index"
    try:
        found = _areas(paths, kind)
    except ImageError:
        kind = "colour"
        found = _areas(paths, kind)
        _refuse_numbers(paths, found)
    if not 0 < len(found) <= MOST_CLASSES + 1:
        raise DataError(
            f"masks must have 1 to {MOST_CLASSES} classes; the {len(paths):,} masks, such as {printable(paths[0])}, "
            f"have {len(found):,} different values. Give the table of the classes"
        )
    codes = sorted(found)
    ignored = (IGNORE,) if kind == "index" and codes[-1] == IGNORE and len(codes) > 2 else ()
    codes = [code for code in codes if code not in ignored]
    plain = MaskCode(kind=kind, class_names=tuple(map(str, codes)), codes=tuple(codes), ignored=ignored)
    names = tuple(class_names) or tuple(map(plain.shown, codes))
    if len(names) != len(codes):
        raise DataError(
            f"there must be a name for each code of the masks, {', '.join(map(plain.shown, codes))}; got {len(names)}"
        )
    return MaskCode(kind=kind, class_names=names, codes=tuple(codes), ignored=ignored)


def _header(width: int, height: int, orientation: int) -> ImageHeader:
    return ImageHeader(width=width, height=height, channels=1, format="", mode="", orientation=orientation)


def _refuse_numbers(paths: Sequence[str], found: Collection[int]) -> None:
    """Raise DataError if some of these masks, which have colours, have grey numbers instead: each would be a class."""
    numbers = {code & 255 for code in found if 0 < code & 255 < _DARK and code == (code & 255) * 0x010101}
    for path in paths if numbers else ():
        try:
            values = read_codes(path, "index")
        except ImageError:
            continue
        shades = read_codes(path, "colour")
        if (shades == values * 0x010101).all() and (held := numbers & set(np.unique(values).tolist())):
            raise DataError(
                f"masks must all have numbers, or all colours; {printable(path)} has numbers, such as {min(held)}, and "
                "others have colours: write all of them in one way"
            )


def _areas(paths: Sequence[str], kind: Kind) -> set[int]:
    """Return the codes of pixels that have the same code as all around them; of numbers also 255 anywhere."""
    present = np.zeros(2**24, bool)
    for path in paths:
        codes = read_codes(path, kind)
        inner = codes[1:-1, 1:-1]
        same = np.ones(inner.shape, bool)
        height, width = codes.shape
        for down, across in NEIGHBOURS:
            same &= codes[1 + down : height - 1 + down, 1 + across : width - 1 + across] == inner
        present[inner[same]] = True
        if kind == "index" and not present[IGNORE]:
            present[IGNORE] = (codes == IGNORE).any()
    return set(np.flatnonzero(present).tolist())
