"""The results on corrupted and on attacked images, each with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effnet.system.records import to_data

CLEAN = "clean"
"""The kind of images without a corruption; their severity is 0."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The answers of one export to the images after one corruption.

    `interval` is the 95 % Wilson interval of the accuracy, `ece` the expected calibration error over 15 bins,
    `ece_interval` its 95 % bootstrap interval over images; `confidence` is the mean of the largest probability.
    """

    format: str
    kind: str
    severity: int
    accuracy: float
    interval: Interval
    ece: float
    ece_interval: Interval
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean accuracy of one export over all corruptions, each of kind and severity alike.

    `interval` is the 95 % bootstrap interval over images. `relative_drop` is the share of the clean accuracy that is
    lost; it may be below 0. `ece` is the mean expected calibration error.
    """

    format: str
    accuracy: float
    interval: Interval
    relative_drop: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How much more an export of lower precision loses on corrupted images than on clean ones.

    `clean` and `corrupted` are its accuracy minus that of the other; `interval` is the 95 % bootstrap interval over
    images of `corrupted` - `clean`.
    """

    format: str
    other: str
    clean: float
    corrupted: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionScore:
    """The result of `evaluate(..., corruptions=True)`: `conditions` are clean ones first, then by kind and severity.

    Every export answered the same corrupted images. `unreadable` images are not among `images`.
    """

    images: int
    unreadable: int
    formats: tuple[str, ...]
    severities: tuple[int, ...]
    conditions: tuple[Condition, ...]
    means: tuple[Mean, ...]
    gap: Gap | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        found: dict[str, Any] = to_data(self)
        return found

    def of(self, format: str, kind: str, severity: int) -> Condition:  # noqa: A002
        """Return one condition; raise KeyError if it was not measured."""
        for each in self.conditions:
            if (each.format, each.kind, each.severity) == (format, kind, severity):
                return each
        raise KeyError((format, kind, severity))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of corruption, in order, without the clean images."""
        return tuple(dict.fromkeys(each.kind for each in self.conditions if each.kind != CLEAN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """The accuracy of one export, or of the network itself, on images attacked within `eps` levels of 255.

    `method` is "fgsm" or "pgd", "" for the clean images, whose eps is 0. `interval` is the 95 % Wilson interval.
    """

    format: str
    method: str
    eps: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackScore:
    """The result of `evaluate(..., adversarial=EPS)`: `rows` are clean ones first, then by method and eps.

    The attacks are made on the network in fp32, "network"; the exports answer the same images, rounded to uint8.
    """

    images: int
    unreadable: int
    formats: tuple[str, ...]
    steps: int
    rows: tuple[Attacked, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        found: dict[str, Any] = to_data(self)
        return found

    def of(self, format: str, method: str, eps: int) -> Attacked:  # noqa: A002
        """Return one row; raise KeyError if it was not measured."""
        for row in self.rows:
            if (row.format, row.method, row.eps) == (format, method, eps):
                return row
        raise KeyError((format, method, eps))


def severities_of(wanted: Sequence[int] | int | None) -> tuple[int, ...]:
    """Return the severities to measure, in order; by default 1, 3 and 5."""
    if wanted is None:
        return 1, 3, 5
    return tuple(sorted({wanted} if isinstance(wanted, int) else set(wanted)))
