"""Formatting of text and numbers for people: safe text on one line, shares, counts, quantities with units."""

import math
import unicodedata
from datetime import datetime
from typing import Any

from effnet.system import text as text_of

ABSENT = "–"
LABELS = {"latency_ms": "Latency", "params": "Parameters", "macs": "MACs", "size_mb": "Size", "memory_mb": "Memory"}
"""The labels of the figures of a budget, by its keys."""


def printable(text: str, *, columns: int | None = None) -> str:
    """Return text as one line without control characters, cut to `columns` terminal columns if given."""
    spaced = "".join(" " if c.isspace() and c != "\xa0" else c for c in text)
    line = "".join(c for c in spaced if c in " \xa0" or c.isprintable())
    if columns is None or width(line) <= columns:
        return line
    while width(line) >= columns:
        line = line[: len(line) - max(1, (width(line) - columns) // 2)]
    return line.rstrip() + "…"


def width(text: str) -> int:
    """Count the terminal columns of text, two for each wide character of East Asia."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def markdown(text: str) -> str:
    """Return text as one line of Markdown that shows exactly that text, without its control characters."""
    return text_of.markdown(printable(text))


def percent(value: Any) -> str:
    """Format a share; one below 1 never reads as 100 %."""
    if not _is_number(value):
        return ABSENT
    text = text_of.percent(value, 1).removesuffix("%")
    return f"{'100' if text == '100.0' else text}\xa0%"


def probability(value: Any) -> str:
    """Format a threshold, rounded down: three decimals, or more to keep two digits of its distance to 1."""
    if not _is_number(value):
        return ABSENT
    lacking = max(1 - value, 1e-9)
    scale = 10 ** max(3, 1 - math.floor(math.log10(lacking)))
    return f"{math.floor(value * scale + 1e-6) / scale:g}" if value else "0"


def integer(value: Any) -> str:
    """Format a count, with a comma between thousands."""
    return f"{value:,.0f}" if _is_number(value) else ABSENT


def significant(value: Any, digits: int = 3) -> str:
    """Format with some significant digits, but never drop a digit before the point."""
    if not _is_number(value):
        return ABSENT
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}"
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(digits - whole, 0)}f}"


def short(value: Any) -> str:
    """Format a large count as 31 M or 1.25 G."""
    if not _is_number(value):
        return ABSENT
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}\xa0{letter}"
    return f"{value:.3g}"


def duration(value: Any) -> str:
    """Format seconds, as minutes or hours if there are many."""
    if not _is_number(value):
        return ABSENT
    if value < 120:
        return f"{significant(value)}\xa0s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\xa0h {minutes}\xa0min" if hours else f"{minutes}\xa0min {seconds}\xa0s"


def quantity(value: Any, key: str) -> str:
    """Format a measured figure with its unit; `key` is the budget's own, such as latency_ms."""
    if not _is_number(value):
        return ABSENT
    if key == "params":
        return integer(value)
    if key == "macs":
        return short(value)
    return f"{significant(value)}\xa0{_unit(key)}"


def limit(value: Any, key: str) -> str:
    """Format a limit as a person would write it, without trailing zeros."""
    if key in ("params", "macs") or not _is_number(value):
        return quantity(value, key)
    return f"{value:.6g}\xa0{_unit(key)}"


def _unit(key: str) -> str:
    return "ms" if key == "latency_ms" else "MB"


def moment(value: Any) -> str:
    """Format an ISO 8601 time to the minute; any other text stays as it is."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value) if isinstance(value, str) and value else ABSENT
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def over(share: float | None) -> str:
    """Format the excess over a limit, from measured / limit; None if the limit is zero."""
    if share is None:
        return "none allowed"
    return f"{share:.3g} times the limit" if share >= 2 else f"{max(100 * (share - 1), 0.1):.1f}\xa0% over"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
