"""Escape untrusted text for a terminal, a message, a table or a spreadsheet, so that nothing in it takes effect."""

import os
import re
from typing import Any

# Characters that move the cursor, begin a terminal command, end a line or change the writing direction: the control
# characters C0 and C1, Unicode line ends and bidirectional marks (UAX 9). Lone surrogates come from names that are
# not valid text.
_ACTING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINES = re.compile(f"(?!\n)[{_ACTING}]")
_IN_JSON = re.compile(f"(?![\n\r\t])[{_ACTING}]")
# A spreadsheet computes a cell that begins with one of these. Source: OWASP, "CSV Injection".
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
# Entities and backslashes that keep text from being read as Markdown, HTML or the end of a table cell.
_MARKDOWN = str.maketrans({**{c: f"&#{ord(c)};" for c in "&<>|\\"}, **{c: f"\\{c}" for c in "`*_[]~$#!"}})
_BRIEF = 80


def printable(text: str | os.PathLike[str]) -> str:
    """Return a path or name on one line: control characters and undecodable bytes become escapes."""
    safe = os.fspath(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else _escape(c) for c in safe)


def harmless(text: str) -> str:
    """Return lines of text that are safe for a terminal: control characters except line ends become escapes."""
    return _IN_LINES.sub(lambda found: _escape(found[0]), text)


def harmless_json(text: str) -> str:
    """Return an equivalent JSON text whose control characters, except white space, are JSON escapes."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(text: str) -> str:
    """Return text for a CSV cell: as `harmless`, with a leading ' if a spreadsheet would evaluate it."""
    safe = harmless(text)
    return f"'{safe}" if safe.lstrip().startswith(_FORMULA) else safe


def one_line(text: str) -> str:
    """Return text as `harmless` does, with line ends escaped too."""
    return harmless(text).replace("\n", "\\n")


def markdown(text: str) -> str:
    """Return text as one line of Markdown that shows it literally, also in a table cell."""
    return one_line(text).translate(_MARKDOWN)


def shortened(text: str, *, most: int = 300) -> str:
    """Return a text, cut at the end if it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def brief(value: Any, *, most: int = _BRIEF) -> str:
    """Return a rejected value as an error shows it: its repr, cut to `most` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, or endless nesting
        text = f"a value of the type {type(value).__name__}"
    return shortened(text, most=most)


def reason_of(error: Exception) -> str:
    """Return the reason why a file could not be read, on one line, without its path: the message already has it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(text) or type(error).__name__


def percent(share: float, digits: int = 2) -> str:
    """Return a share as a percentage; a share below 1 never becomes 100 %."""
    text = f"{share:.{digits}%}"
    if share < 1 and text == f"{1:.{digits}%}":
        text = f"{1 - 10.0 ** -(digits + 2):.{digits}%}"
    return text


def both(accuracy: float, balanced: float | None) -> str:
    """Return an accuracy, followed by the balanced accuracy (mean recall of the classes) if that differs."""
    found = percent(accuracy)
    if balanced is None or percent(balanced) == found:
        return found
    return f"{found} (balanced {percent(balanced)})"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
