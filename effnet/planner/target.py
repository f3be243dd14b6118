"""The target device of a fit: its runtime, the precisions to use, and its profile if it is another machine."""

from dataclasses import dataclass
from typing import Literal, get_args

from effnet.bundle.formats import Format, Precision
from effnet.errors import InputError, nearest
from effnet.measurement.budget import Budget
from effnet.measurement.paired import MAX_DROP
from effnet.runtimes.registry import DEFAULT, by_precision, runnable
from effnet.system.bounds import is_number

Wanted = Literal["auto", "fp32", "fp16", "bf16", "w8", "int8"]
# The budgets that each precision helps to meet: it is tried only if one of them is set. Weight-only quantization makes
# files smaller, nothing faster.
_BRINGS = {"w8": ("size_mb",), "bf16": ("latency_ms", "size_mb"), "int8": ("latency_ms", "size_mb", "memory_mb")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime, the requested precision, and the accuracy drop that it may cost.

    `max_drop` is a share: 0.005 is half a percentage point of held-out accuracy. `profile` is the file of another
    device's profile, whose predictions then replace measurements; empty for this machine.
    """

    runtime: str = DEFAULT
    precision: Wanted = "auto"
    max_drop: float = MAX_DROP
    profile: str = ""

    def __post_init__(self) -> None:
        _must_be("runtime", self.runtime, runnable())
        _must_be("precision", self.precision, get_args(Wanted))
        if not (is_number(self.max_drop) and 0 <= self.max_drop <= 1):
            raise InputError(f"max_drop must lie in 0..100 percentage points; got {100 * self.max_drop:g}")
        if self.precision != "auto" and self.precision not in self._known:
            raise InputError(
                f"effnet writes {self.runtime} in {', '.join(self._known)}; got precision {self.precision}: "
                "name one of these, or another --runtime"
            )

    @property
    def _known(self) -> tuple[Precision, ...]:
        return tuple(by_precision(self.runtime))

    def precisions(self, budget: Budget) -> tuple[Precision, ...]:
        """Return the precisions to plan with: the requested one or, with auto, fp32 and those that may help."""
        if self.precision != "auto":
            return (self.precision,)
        asked = set(budget.asked())
        return tuple(p for p in self._known if p == "fp32" or asked & set(_BRINGS.get(p, ())))

    def format(self, precision: Precision) -> Format:
        """Return the format that this runtime has in a precision."""
        return by_precision(self.runtime)[precision]


def _must_be(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"--{what} must be one of {', '.join(known)}; got {value!r}{nearest(value, known)}")
