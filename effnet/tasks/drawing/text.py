"""Text on images: a font that has its glyphs, whatever its script, and never an error."""

import sys
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

from effnet.system.text import printable
from effnet.tasks.drawing.colours import Colour

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font, without a name, has the letters of ASCII. Of the others, those that a system has are asked in turn.
_FONTS = (
    "",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "arial.ttf",
    "msgothic.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)
_PROBE_SIZE = 16
# No font has this character; what is drawn instead is drawn for every glyph that a font lacks.
_ABSENT = "\U0010fffe"


def text_size(text: str, size: int) -> tuple[int, int]:
    """Return the width and height of a line of text in pixels; the height is that of any text of this size."""
    font = _font_for(text, size)
    width = font.getbbox(text)[2] if text else 0
    return max(1, round(width)), _line_height(size)


def write_text_(draw: ImageDraw.ImageDraw, text: str, *, left: int, top: int, size: int, ink: Colour) -> None:
    """Write a line of text, its top left corner at a place."""
    font = _font_for(text, size)
    # All fonts have their baselines at one height, so that lines of several scripts match.
    shift = _line_height(size) * 0.78 - (font.getmetrics()[0] if isinstance(font, ImageFont.FreeTypeFont) else size)
    draw.text((left, top + round(shift)), text, fill=ink, font=font)


def readable(text: str, *, instead: str) -> str:
    """Return text on one line, or `instead` if no font of this system has its glyphs.

    Letters lose their accents if that makes them readable.
    """
    line = printable(text).strip()
    plain = "".join(c for c in unicodedata.normalize("NFKD", line) if not unicodedata.combining(c))
    return next((some for some in (line, plain) if some and _font_name(some) is not None), instead)


def fitted(text: str, *, width: int, size: int) -> str:
    """Return text, cut at the end so that it is at most `width` pixels wide."""
    if text_size(text, size)[0] <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_size(f"{text[:middle]}...", size)[0] <= width else (low, middle - 1)
    return f"{text[:low].rstrip()}..."


def _line_height(size: int) -> int:
    return round(size * 1.3)


def _font_for(text: str, size: int) -> Font:
    return _font(_font_name(text) or "", size)


@lru_cache(maxsize=1024)
def _font_name(text: str) -> str | None:
    """Return the first font that has all glyphs of a text, None if none has."""
    return next((name for name in _fonts() if all(_has(name, letter) for letter in set(text))), None)


@lru_cache(maxsize=1)
def _fonts() -> tuple[str, ...]:
    """Return the fonts that may be there, the one that matplotlib brings among them."""
    # Looked up as a file: a device need not have the package, and its import would take a second.
    places = (Path(folder, "matplotlib", "mpl-data", "fonts", "ttf", "DejaVuSans.ttf") for folder in sys.path)
    brought = [str(place) for place in places if place.is_file()]
    return (*_FONTS[:2], *brought, *_FONTS[2:])


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


@lru_cache(maxsize=32)
def _absent_glyph(name: str) -> tuple[tuple[int, int], bytes] | None:
    """Return what a font draws for a character that it lacks, None if the system has no such font."""
    try:
        return _drawn(name, _ABSENT)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(name: str, letter: str) -> bool:
    if not name and letter.isascii():
        return True  # also without FreeType, when Pillow has one font of Latin letters
    absent = _absent_glyph(name)
    return absent is not None and (letter.isspace() or _drawn(name, letter) != absent)


def _drawn(name: str, letter: str) -> tuple[tuple[int, int], bytes]:
    try:
        mask = _font(name, _PROBE_SIZE).getmask(letter)
    except UnicodeEncodeError:  # the font without FreeType
        return (0, 0), b""
    return mask.size, bytes(mask)
