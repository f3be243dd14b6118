"""The choice of the score that says "unknown", by estimates, and its record for the report."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from effnet.system.records import OPTIONAL, to_data
from effnet.tasks.known import TITLES, Method

GAIN = 0.01
"""Another score than the largest probability must have an AUROC that is larger by more than this. A difference of two
standard errors besides would lower the mean gain, and the largest loss (benchmarks/unknowns.py: gain_if_careful)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimated AUROC of a score: the share of pairs of a known and an unknown image that it orders correctly.

    `error` is the standard error of its difference from that of the largest probability, over the classes that were
    left out. `left_out` says why it could not be chosen; empty if it could.
    """

    method: Method
    auroc: float
    error: float = 0.0
    left_out: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChoice:
    """The score of a bundle and why it was chosen: `estimates` are empty if there were too few classes for them.

    `sentence` gives the reason in words, `threshold` is None if the model always answers. `size_bytes` and `macs` are
    what it adds to the file. `fallback` says which deployed file cannot return it, and what decides there; empty if it
    can.
    """

    method: Method
    estimates: tuple[Estimate, ...]
    sentence: str
    threshold: float | None = None
    size_bytes: int = 0
    macs: int = 0
    fallback: str = ""

    @property
    def title(self) -> str:
        """The score in words."""
        return TITLES[self.method]

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON-able data."""
        found: dict[str, Any] = to_data(self)
        return found


def why_chosen(method: Method, estimates: Sequence[Estimate], *, asked: bool) -> str:
    """Return the reason for a score in words; `asked` says that the user chose it."""
    known = {estimate.method: 100 * estimate.auroc for estimate in estimates}
    if not known:
        return f"Images of unknown classes are found by {TITLES[method]}, as requested."
    beside = f"AUROC {known[method]:.1f}%"
    if method != "probability":
        beside += f", {known['probability']:.1f}% by the largest probability"
    if asked:
        return f"Images of unknown classes are found by {TITLES[method]}, as requested: {beside}, estimated."
    best = max(known, key=lambda name: known[name])
    if method != "probability" or best == method:
        return f"Images of unknown classes are found by {TITLES[method]}: {beside}, estimated, is the best."
    out = {estimate.method for estimate in estimates if estimate.left_out}
    reason = "was left out" if best in out else "is not better by more than a point"
    return (
        f"Images of unknown classes are found by {TITLES[method]}: {beside}, estimated; {TITLES[best]}, "
        f"{known[best]:.1f}%, {reason}."
    )


def choose_method(estimates: Sequence[Estimate], *, refused: Collection[Method] = ()) -> Method:
    """Return the score of the largest estimate that is not refused.

    It is the largest probability, which costs nothing, unless the other is better by more than one point of AUROC.
    """
    known = {estimate.method: estimate.auroc for estimate in estimates if estimate.method not in refused}
    if "probability" not in known:
        return "probability"
    best = max(known, key=lambda method: known[method])
    return best if known[best] > known["probability"] + GAIN else "probability"
