"""What an audit of a data set finds, and its text for a terminal."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from effnet.system.text import percent, printable

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelError:
    """An image whose label is probably wrong: the given class, the most likely other one, and the probability."""

    path: str
    split: str
    given: str
    likely: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicate:
    """Two images that show almost the same, with the cosine of their features and the reason they are listed."""

    paths: tuple[str, str]
    splits: tuple[str, str]
    labels: tuple[str, str]
    cosine: float

    @property
    def across_splits(self) -> bool:
        """Whether one of the two is held out from the other."""
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """An image unlike all others: its mean cosine distance to the nearest ones, 0 for copies and about 1 for none."""

    path: str
    split: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The findings about a data set, the surest first; nothing is changed or left out because of them.

    `judged` of the `images` have a probability of a wrong label; `noise_rate` is the estimated share of wrong labels
    among them, None if no label is judged. `label_errors` are at most as many as were requested, of which
    `expected_precision` are expected to be wrong; `expected_errors` is the number to expect in the whole set.
    `least_cosine` is the cosine of features from which two images were compared for a part that both show.
    """

    weights: str
    images: int
    judged: int
    noise_rate: float | None
    expected_errors: float
    label_errors: tuple[LabelError, ...]
    expected_precision: float
    near_duplicates: tuple[NearDuplicate, ...]
    least_cosine: float
    outliers: tuple[Outlier, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict."""
        return asdict(self)


def describe_audit(audit: Audit) -> list[str]:
    """Return the audit as plain lines for a terminal."""
    return [*_labels(audit), *_duplicates(audit.near_duplicates), *_outliers(audit.outliers)]


def labels_sentence(audit: Audit) -> str:
    """Return what is expected of the labels, in one sentence."""
    if audit.noise_rate is None:
        return "No label is judged: labels must be classes with two images or more."
    listed = len(audit.label_errors)
    whole = f"About {percent(audit.noise_rate)} of {audit.judged:,} labels are wrong by estimate"
    if not listed:
        return f"{whole}; none is likely to be."
    return f"{whole}; of the {listed:,} listed, {percent(audit.expected_precision)} are expected to be."


def _labels(audit: Audit) -> list[str]:
    rows = [
        f"  {error.probability:>4.0%}  {printable(error.path)} ({error.split}): {printable(error.given)}, "
        f"likely {printable(error.likely)}"
        for error in audit.label_errors
    ]
    return [labels_sentence(audit), *_first(rows)]


def _duplicates(pairs: Sequence[NearDuplicate]) -> list[str]:
    if not pairs:
        return ["No two images are near-duplicates."]
    across = sum(pair.across_splits for pair in pairs)
    rows = [
        "  "
        + " = ".join(
            f"{printable(path)} ({split}, {printable(label)})"
            for path, split, label in zip(pair.paths, pair.splits, pair.labels, strict=True)
        )
        for pair in pairs
    ]
    many = "1 pair of images is" if len(pairs) == 1 else f"{len(pairs):,} pairs of images are"
    return [f"{many} near-duplicates, {across:,} of them across splits:", *_first(rows)]


def _outliers(outliers: Sequence[Outlier]) -> list[str]:
    rows = [
        f"  {each.distance:.2f}  {printable(each.path)} ({each.split}, {printable(each.label)})" for each in outliers
    ]
    return ["The images that are least like all others:", *_first(rows)] if outliers else []


def _first(rows: list[str]) -> list[str]:
    return rows[:_SHOWN] + [f"  and {len(rows) - _SHOWN:,} more"] * (len(rows) > _SHOWN)
