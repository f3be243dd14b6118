"""The device budget: its limits, the measured figures, and whether they meet it."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from effnet.errors import InputError
from effnet.system.bounds import MAX_AMOUNT, check_positive
from effnet.system.records import OPTIONAL
from effnet.system.text import brief

# The share of each budget that planning leaves free: a measurement on another day differs, and a few layers of the
# finished file may stay float. Counts are exact.
MARGINS = {"latency_ms": 0.10, "memory_mb": 0.10, "size_mb": 0.02, "params": 0.0, "macs": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The upper limit of each figure; None if it is not limited.

    `latency_ms` is the median time of one image in ONNX Runtime, `size_mb` that of the ONNX file and `memory_mb` the
    peak memory of the model beyond the idle runtime, both in 10^6 bytes; `params` and `macs` are counts. With `margin`,
    as planning has it, a share of each limit stays free.
    """

    latency_ms: float | None = None
    params: float | None = None
    macs: float | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    margin: bool = field(default=False, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if value is not None:
                check_positive(f"the budget of {LABELS[name]}", value)

    def to_dict(self) -> dict[str, float | None]:
        """Return all five limits, None if not limited."""
        return {name: getattr(self, name) for name in LABELS}

    def asked(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {name: value for name, value in self.to_dict().items() if value is not None}

    def in_words(self) -> str:
        """Return the limits that are set, in words; empty without any."""
        return ", ".join(f"{LABELS[name]} {say(name, value)}" for name, value in self.asked().items())

    def with_margin(self) -> "Budget":
        """Return the budget with its margins free."""
        return _with_margin(self)

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, less their margins if those stay free."""
        return {name: value * (1 - self._margin(name)) for name, value in self.asked().items()}

    def _margin(self, name: str) -> float:
        return MARGINS[name] if self.margin else 0.0

    def exceeded(self, measured: Mapping[str, float | None]) -> dict[str, float]:
        """Return the figures that are above their limit; one that was not measured, None or absent, is not."""
        return {
            name: value
            for name, limit in self.limits().items()
            if (value := measured.get(name)) is not None and value > limit
        }

    def failures(self, measured: Mapping[str, float | None]) -> tuple[str, ...]:
        """Return a sentence for each limit that `measured` exceeds."""
        return tuple(self._failure(name, value) for name, value in self.exceeded(measured).items())

    def _failure(self, name: str, value: float) -> str:
        limit, margin = self.asked()[name], self._margin(name)
        rest = f" less the margin of {margin:.0%}" if margin and value <= limit else ""
        shown, asked = say_apart(name, value, limit)
        return f"{LABELS[name]} {shown} is over the budget of {asked}{rest}"

    def share(self, measured: Mapping[str, float | None]) -> float:
        """Return the share of the budget that `measured` uses.

        With several limits it is the largest share, above 1 if one is exceeded; unmeasured figures count as zero.
        """
        return max(((measured.get(name) or 0.0) / limit for name, limit in self.limits().items()), default=0.0)


@lru_cache(maxsize=64)
def _with_margin(budget: Budget) -> Budget:
    # Planning asks for it at each of thousands of candidates.
    return dataclasses.replace(budget, margin=True)


LABELS = {
    "latency_ms": "latency",
    "params": "parameters",
    "macs": "MACs",
    "size_mb": "size on disk",
    "memory_mb": "peak memory",
}
_UNITS = {"latency_ms": " ms", "size_mb": " MB", "memory_mb": " MB"}


def say(name: str, value: float, *, digits: int = 3) -> str:
    """Return a value of the budget with its unit, for a sentence; counts are exact, others have `digits` digits."""
    if name in ("params", "macs"):
        return f"{value:,.0f}"
    number = f"{value:.{digits}g}"
    # No exponents: 2000 MB, not 2e+03.
    return (f"{value:.0f}" if "e+" in number else number) + _UNITS[name]


def say_apart(name: str, first: float, second: float) -> tuple[str, str]:
    """Return two values of the budget with enough digits to distinguish them."""
    for digits in range(3, 17):
        texts = say(name, first, digits=digits), say(name, second, digits=digits)
        if texts[0] != texts[1] or first == second:
            break
    return texts


def say_at_least(name: str, value: float) -> str:
    """Return a value of the budget rounded up to three digits, so that a budget of it suffices."""
    if name in ("params", "macs"):
        return say(name, math.ceil(value))
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return say(name, math.ceil(value / step - 1e-9) * step, digits=4)


def say_enough(name: str, value: float) -> str:
    """Return the limit that suffices for a measured value, with its margin."""
    return say_at_least(name, value / (1 - MARGINS[name]))


_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([kmgbt]?)\s*", re.IGNORECASE)
_POWERS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def parse_amount(text: str) -> float:
    """Return the count that a text such as 300M, 1.5G or 5k stands for; raise InputError for any other."""
    found = _AMOUNT.fullmatch(text)
    if not found:
        raise InputError(
            f"an amount must be a positive number, with k, M or G after it or nothing, such as 1.5M; got {brief(text)}"
        )
    amount = float(found[1]) * _POWERS[found[2].lower()]
    if amount > MAX_AMOUNT:
        raise InputError(f"an amount must be at most {MAX_AMOUNT:g}; got {brief(text)}")
    return amount
