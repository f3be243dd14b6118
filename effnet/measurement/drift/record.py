"""The result of a comparison of new images with those that a bundle was tested on."""

from dataclasses import dataclass, field
from typing import Any, Literal

from effnet.system.records import OPTIONAL, to_data

SIGNIFICANCE = 0.05
"""The probability that all tests together find a drift that is none; each gets its share of it (Bonferroni)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """The test of one quantity: a class's score, or a property of the images; `before` and `after` are its means.

    `distance` is that of Kolmogorov and Smirnov, `p_value` that of the two-sided test, not corrected; `drifted` says
    that it is below the corrected level.
    """

    name: str
    of: Literal["score", "image"]
    before: float
    after: float
    distance: float
    p_value: float
    drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A population-stability index, and the one that chance exceeds once in a thousand times with as many images."""

    name: Literal["label", "confidence"]
    value: float
    by_chance: float
    drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The share of the images that a class is the answer to."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The share of images that are answered with "unknown"; `interval` is the 95 % Wilson interval of `after`.

    `before` is None if it is unknown.
    """

    before: float | None
    after: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftScore:
    """The drift of `images` against `reference_images`, which `reference` describes.

    `shifts` is empty if only the figures of report.json were available. `unknown` is None without a threshold.
    """

    images: int
    unreadable: int
    reference: str
    reference_images: int
    level: float
    shifts: tuple[Shift, ...]
    indices: tuple[Index, ...]
    labels: tuple[Label, ...]
    unknown: Rejected | None = field(default=None, metadata=OPTIONAL)

    @property
    def drifted(self) -> bool:
        """Whether any test or index says that the images or their answers have changed."""
        return any(each.drifted for each in (*self.shifts, *self.indices))

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        found: dict[str, Any] = to_data(self)
        return found | {"drifted": self.drifted}
