"""Upper bounds for the numbers of a job: larger ones are typing errors that would run forever or fill the memory."""

import math
from numbers import Integral, Real
from typing import Any

from effnet.errors import InputError
from effnet.system.text import brief

MAX_SEED = 2**32 - 1
# ONNX Runtime starts as many as requested: a hundred thousand keep a machine busy for hours.
MAX_THREADS = 1024
MAX_EPOCHS = 100_000
MAX_BATCH = 1_000_000
MAX_SIDE = 10_000
MAX_CHANNELS = 4096
# No machine has more milliseconds, bytes or counts, and no plot's axis could show more.
MAX_AMOUNT = 1e15
# A few dozen milliseconds to a year.
MINUTES = (1e-3, 525_600.0)


def check_whole(what: str, value: Any, *, least: int, most: int) -> None:
    """Raise InputError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{what} must be a whole number; got {brief(value)}")
    if not least <= int(value) <= most:
        raise InputError(f"{what} must lie in {least}..{most}; got {brief(value)}")


def check_positive(what: str, value: Any, *, most: float = MAX_AMOUNT) -> None:
    """Raise InputError unless `value` is a finite number above 0 and at most `most`."""
    if not is_number(value) or value <= 0:
        raise InputError(f"{what} must be positive and finite; got {brief(value)}")
    if value > most:
        raise InputError(f"{what} must be at most {most:g}; got {brief(value)}")


def check_minutes(value: Any) -> None:
    """Raise InputError unless `value` is a possible duration of a job, in minutes."""
    check_positive("minutes", value)
    if not MINUTES[0] <= value <= MINUTES[1]:
        raise InputError(f"minutes must lie in {MINUTES[0]:g}..{MINUTES[1]:.0f}; got {brief(value)}")


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number; an integer too large for a float is not."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
