"""The value range of images with more than 8 bits (black to white): one range for all images of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from effnet.errors import DataError, ImageError, InputError, nearest, shown

Asked = Literal["auto"] | tuple[float, float]
"""The values of value_range: a lowest and a highest value, or "auto" to determine them from the data."""

LOOSE = 0.01
"""Share of a range by which values may exceed its ends and still belong to it: 1.004 belongs to 0..1."""

# Without a range, the upper 8 bits of these integer types are used: (offset, shift).
_WHOLE_TYPES = {"uint12": (0, 4), "uint16": (0, 8), "int16": (2**15, 8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """Values from `low`, which becomes 0, to `high`, which becomes 255; those outside are clipped.

    It is for images whose files hold more than 8 bits or real numbers; 8-bit images are unchanged. Raises DataError
    unless both are finite numbers and `low` is the smaller.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        for value in (self.low, self.high):
            if type(value) not in (int, float) or not abs(value) <= 1e30:
                raise DataError(f"a value range must be two numbers within 1e30 of 0, received {shown(value)}")
        # With closer ends, fp64 arithmetic could not distinguish values.
        if not self.high - self.low > 1e-12 * max(abs(self.low), abs(self.high), 1e-18):
            raise DataError(f"the low end of a value range must be below the high one, received {self}")

    def __str__(self) -> str:
        return f"{number(self.low)}..{number(self.high)}"

    def to_dict(self) -> dict[str, float]:
        """Return a JSON-serializable dict that from_dict reads back."""
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, values: Any) -> "ValueRange":
        """Read the result of to_dict; raise DataError for anything else."""
        if not isinstance(values, Mapping) or set(values) != {"low", "high"}:
            raise DataError(f"a value range must have the keys low and high, received {shown(values)}")
        return cls(low=values["low"], high=values["high"])


def read_asked(asked: object) -> ValueRange | None:
    """Return the requested range, from two numbers or a text "LOW,HIGH", or None for "auto".

    Raises InputError for anything else.
    """
    if asked == "auto":
        return None
    parts = asked.split(",") if isinstance(asked, str) else asked
    try:
        low, high = (float(part) for part in parts)  # type: ignore[attr-defined]
        return ValueRange(low=low, high=high)
    except (ValueError, TypeError, OverflowError, DataError) as error:
        why = f" ({error})" if isinstance(error, DataError) else ""
        hint = nearest(asked, ("auto",)) if isinstance(asked, str) else ""
        raise InputError(
            f"value_range must be LOW,HIGH, the smaller value first, such as 0,4095, or auto; got {shown(asked)}"
            f"{why}{hint}"
        ) from error


def number(value: float) -> str:
    """Return a value as text that reads back to the same value, integers without a decimal point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def to_uint8(values: np.ndarray, kind: str, value_range: ValueRange | None) -> np.ndarray:
    """Return uint8 of the same shape; `kind` is the type of the values, "uint12" for the 12 bits of a TIFF file.

    NaN becomes black. Without a range, 16-bit integers use the range of their type (the upper byte) and real numbers
    0..1; other types, and real numbers outside 0..1, raise ImageError.
    """
    if value_range is not None:
        low, high = float(value_range.low), float(value_range.high)
        found = np.clip(np.asarray(values, np.float64), low, high)
        np.nan_to_num(found, copy=False, nan=low)
        found -= low
        found *= 255 / (high - low)
        return np.rint(found, out=found).astype(np.uint8)
    if kind in _WHOLE_TYPES:
        offset, shift = _WHOLE_TYPES[kind]
        return ((values.astype(np.int32) + offset) >> shift).astype(np.uint8)
    if not is_real(kind):
        raise ImageError(
            f"its {kind} values need a value range, and none is known: the model was not fitted on such images; store "
            "8 or 16 bits"
        )
    finite = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    if finite.size and not (finite.min() >= -LOOSE and finite.max() <= 1 + LOOSE):
        far = max((finite.min(), finite.max()), key=lambda value: abs(value - 0.5))
        raise ImageError(
            f"real numbers must lie in 0..1 if no value range is known, but these reach {far:g}: the model was not "
            "fitted on such images; store 8 or 16 bits"
        )
    return (np.clip(finite, 0, 1) * 255).astype(np.uint8)


def is_real(kind: str) -> bool:
    """Return whether values of this type are real numbers."""
    return kind.startswith("float")


def assumption(kind: str) -> str:
    """Return the assumption about images of this type if no range is known, as a sentence, or an empty string."""
    if is_real(kind):
        assumed = "0..1"
    elif kind in _WHOLE_TYPES:
        offset, shift = _WHOLE_TYPES[kind]
        assumed = f"{-offset}..{2 ** (8 + shift) - 1 - offset}"
    else:
        return ""
    return (
        f"there are images of {kind} values, but the model was fitted on 8-bit images and has no value range: "
        f"{assumed} is read as black to white"
    )


def loosely_in(low: float, high: float, least: float, most: float) -> bool:
    """Return whether values from `least` to `most` lie in the range low..high and fill at least a quarter of it."""
    slack = LOOSE * (high - low)
    filled = max(abs(least), abs(most)) >= max(abs(low), abs(high)) / 4
    return filled and low - slack <= least and most <= high + slack
