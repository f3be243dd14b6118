"""The value range of images with more than 8 bits (black to white): one range for all images of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from effnet.errors import DataError, ImageError, InputError, nearest, shown

Asked = Literal["auto", "window"] | tuple[float, float] | tuple[tuple[float, float], ...]
"""The values of value_range: a lowest and a highest value, such a pair for each channel, "auto" or "window".

"auto" determines them from the data. "window" is the window of each DICOM file.
"""

LOOSE = 0.01
"""Share of a range by which values may exceed its ends and still belong to it: 1.004 belongs to 0..1."""

_MOST_SHOWN = 4
# Without a range, the upper 8 bits of these integer types are used: (offset, shift).
_WHOLE_TYPES = {"uint12": (0, 4), "uint16": (0, 8), "int16": (2**15, 8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """Values from `low`, which becomes 0, to `high`, which becomes 255; those outside are clipped.

    It is for images whose files hold more than 8 bits or real numbers; 8-bit images are unchanged. Both may be tuples
    with a number for each channel. With `window`, a DICOM file that has a window is mapped by that instead. Raises
    DataError unless all are finite numbers and `low` is the smaller.
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    window: bool = False

    def __post_init__(self) -> None:
        if type(self.window) is not bool:
            raise DataError(f"window of a value range must be true or false, received {shown(self.window)}")
        lows, highs = (value if isinstance(value, tuple) else (value,) for value in (self.low, self.high))
        if len(lows) != len(highs) or not lows or isinstance(self.low, tuple) != isinstance(self.high, tuple):
            raise DataError(
                f"a value range must have as many low as high values, received {shown(self.low)} and {shown(self.high)}"
            )
        for low, high in zip(lows, highs, strict=True):
            _check_ends(low, high)

    def __str__(self) -> str:
        if not isinstance(self.low, tuple):
            return f"{number(self.low)}..{number(self.high)}"  # type: ignore[arg-type]
        each = [str(self.of(channel)) for channel in range(len(self.low))]
        more = f" and {len(each) - _MOST_SHOWN} more" if len(each) > _MOST_SHOWN else ""
        return f"{', '.join(each[:_MOST_SHOWN])}{more} (by channel)"

    @property
    def channels(self) -> int | None:
        """The number of channels that have a range each, or None if all have the same."""
        return len(self.low) if isinstance(self.low, tuple) else None

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value of all channels."""
        lows, highs = (value if isinstance(value, tuple) else (value,) for value in (self.low, self.high))
        return min(lows), max(highs)

    def of(self, channel: int) -> "ValueRange":
        """Return the range of one channel."""
        if not isinstance(self.low, tuple) or not isinstance(self.high, tuple):
            return self
        return ValueRange(low=self.low[channel], high=self.high[channel])

    @property
    def asked(self) -> Asked:
        """The value of the option that gives this range."""
        if not isinstance(self.low, tuple) or not isinstance(self.high, tuple):
            return self.low, self.high  # type: ignore[return-value]
        return tuple(zip(self.low, self.high, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict that from_dict reads back."""
        low, high = (list(value) if isinstance(value, tuple) else value for value in (self.low, self.high))
        return {"low": low, "high": high} | ({"window": True} if self.window else {})

    @classmethod
    def from_dict(cls, values: Any) -> "ValueRange":
        """Read the result of to_dict; raise DataError for anything else."""
        if not isinstance(values, Mapping) or set(values) - {"window"} != {"low", "high"}:
            raise DataError(f"a value range must have the keys low and high, received {shown(values)}")
        low, high = (tuple(v) if isinstance(v, list) else v for v in (values["low"], values["high"]))
        return cls(low=low, high=high, window=values.get("window", False))


def _check_ends(low: object, high: object) -> None:
    """Raise DataError unless both are finite numbers, and `low` is clearly the smaller."""
    for value in (low, high):
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e30:
            raise DataError(f"a value range must be two numbers within 1e30 of 0, received {shown(value)}")
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    # With closer ends, fp64 arithmetic could not distinguish values.
    if not high - low > 1e-12 * max(abs(low), abs(high), 1e-18):
        raise DataError(
            f"the low end of a value range must be below the high one, received {number(low)}..{number(high)}"
        )


def read_asked(asked: object) -> ValueRange | Literal["window"] | None:
    """Return the requested range, from two numbers or a text "LOW,HIGH", "window" for itself, or None for "auto".

    Pairs of numbers, in a text with semicolons between them, are the ranges of channels. Raises InputError for
    anything else.
    """
    if asked == "auto":
        return None
    if asked == "window":
        return "window"
    try:
        parts: Any = asked.split(";") if isinstance(asked, str) else asked
        if isinstance(asked, str):
            pairs = [tuple(float(number) for number in part.split(",")) for part in parts]
        elif all(isinstance(part, list | tuple) for part in parts):
            pairs = [tuple(float(number) for number in part) for part in parts]
        else:
            pairs = [tuple(float(number) for number in parts)]
        lows, highs = zip(*((low, high) for low, high in pairs), strict=True)
        return ValueRange(low=lows, high=highs) if len(pairs) > 1 else ValueRange(low=lows[0], high=highs[0])
    except (ValueError, TypeError, OverflowError, DataError) as error:
        why = f" ({error})" if isinstance(error, DataError) else ""
        hint = nearest(asked, ("auto", "window")) if isinstance(asked, str) else ""
        raise InputError(
            f"value_range must be LOW,HIGH, the smaller value first, such as 0,4095, or auto; got {shown(asked)}"
            f"{why}{hint}"
        ) from error


def number(value: float) -> str:
    """Return a value as text that reads back to the same value, integers without a decimal point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def to_uint8(values: np.ndarray, kind: str, value_range: ValueRange | None) -> np.ndarray:
    """Return uint8 of the same shape, which is [..., channels] if there is a range for each channel.

    `kind` is the type of the values, "uint12" for the 12 bits of a TIFF file.
    NaN becomes black. Without a range, 16-bit integers use the range of their type (the upper byte) and real numbers
    0..1; other types, and real numbers outside 0..1, raise ImageError.
    """
    if value_range is not None:
        check_ranges(values.shape[2] if values.ndim == 3 else 1, value_range)
        low, high = np.asarray(value_range.low, np.float64), np.asarray(value_range.high, np.float64)
        found = np.clip(np.asarray(values, np.float64), low, high)
        found -= low
        np.nan_to_num(found, copy=False, nan=0.0)
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


def check_ranges(channels: int, value_range: ValueRange) -> None:
    """Raise ImageError if the range is one for each channel, and there are not as many channels."""
    wanted = value_range.channels
    if wanted is not None and channels != wanted:
        raise ImageError(f"it must have {wanted} channels, as the value range does; it has {channels}")


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
