"""The comparison of two samples of answers, or of one with the figures of a report."""

from collections.abc import Iterator, Sequence

import numpy as np

from effnet.measurement.classification.calibration import BINS
from effnet.measurement.drift.expected import Expected
from effnet.measurement.drift.record import SIGNIFICANCE, DriftScore, Index, Label, Rejected, Shift
from effnet.measurement.drift.sample import PROPERTIES, Sample
from effnet.measurement.drift.statistics import (
    CHANGED,
    bin_of,
    index_by_chance,
    ks_distance,
    ks_p_value,
    stability_index,
)
from effnet.measurement.intervals import wilson


def compare_samples(before: Sample, after: Sample, class_names: Sequence[str], *, reference: str) -> DriftScore:
    """Return the drift of a sample against another: a Kolmogorov-Smirnov test of every class score and property.

    Each is judged at SIGNIFICANCE over the number of tests (Bonferroni). Source: Rabanser et al. 2019, "Failing
    loudly" (arXiv 1810.11953), where tests of a classifier's scores found shifts best.
    """
    columns = [
        *((name, "score", before.probabilities[:, i], after.probabilities[:, i]) for i, name in enumerate(class_names)),
        *((name, "image", before.properties[:, i], after.properties[:, i]) for i, name in enumerate(PROPERTIES)),
    ]
    level = SIGNIFICANCE / len(columns)
    shifts = []
    for name, of, first, second in columns:
        distance = ks_distance(first, second)
        p_value = ks_p_value(distance, len(first), len(second))
        shifts.append(
            Shift(
                name=name,
                of=of,  # type: ignore[arg-type]
                before=float(first.mean()),
                after=float(second.mean()),
                distance=distance,
                p_value=p_value,
                drifted=p_value < level,
            )
        )
    expected = Expected(
        labels=dict(zip(class_names, _labels(before).tolist(), strict=True)),
        confidence=dict(enumerate(_confidences(before).tolist())),
    )
    rejected = None if before.unknown is None else float(before.unknown.mean())
    return _score(
        expected, len(before), after, class_names, shifts=tuple(shifts), level=level, rejected=rejected,
        reference=reference,
    )  # fmt: skip


def compare_figures(expected: Expected, after: Sample, class_names: Sequence[str], *, reference: str) -> DriftScore:
    """Return the drift of a sample against the figures of report.json: the indices of labels and confidence alone."""
    count = round(sum(expected.labels.values()))
    return _score(
        expected, count, after, class_names, shifts=(), level=SIGNIFICANCE, rejected=None, reference=reference
    )


def _score(
    expected: Expected,
    count: int,
    after: Sample,
    class_names: Sequence[str],
    *,
    shifts: tuple[Shift, ...],
    level: float,
    rejected: float | None,
    reference: str,
) -> DriftScore:
    wanted, found = np.array([expected.labels[name] for name in class_names]), _labels(after)
    bins = np.array([expected.confidence.get(number, 0.0) for number in range(BINS)])
    unknown = None
    if after.unknown is not None:
        low = int(after.unknown.sum())
        unknown = Rejected(before=rejected, after=low / len(after), interval=wilson(low, len(after)))
    return DriftScore(
        images=len(after),
        unreadable=after.unreadable,
        reference=reference,
        reference_images=count,
        level=level,
        shifts=shifts,
        indices=(
            _index("label", wanted, found),
            _index("confidence", bins, _confidences(after)),
        ),
        labels=tuple(
            Label(name=name, before=float(a / wanted.sum()), after=float(b / len(after)))
            for name, a, b in zip(class_names, wanted, found, strict=True)
        ),
        unknown=unknown,
    )


def _index(name: str, before: np.ndarray, after: np.ndarray) -> Index:
    value = stability_index(before, after)
    chance = index_by_chance(before, after)  # few images have a large index by chance
    return Index(
        name=name,  # type: ignore[arg-type]
        value=value,
        by_chance=chance,
        drifted=value > max(CHANGED, chance),
    )


def _labels(sample: Sample) -> np.ndarray:
    return np.bincount(sample.probabilities.argmax(1), minlength=sample.probabilities.shape[1]).astype(np.float64)


def _confidences(sample: Sample) -> np.ndarray:
    bins = [bin_of(float(each)) for each in sample.probabilities.max(1)]
    return np.bincount(bins, minlength=BINS).astype(np.float64)


def drift_lines(found: DriftScore) -> Iterator[str]:
    """Yield the result in sentences."""
    unreadable = f" ({found.unreadable} more could not be read)" if found.unreadable else ""
    yield f"{found.images:,} images{unreadable} against {found.reference}"
    if found.shifts:
        changed = [each for each in found.shifts if each.drifted]
        yield (
            f"{len(changed)} of {len(found.shifts)} Kolmogorov-Smirnov tests find a change (p below {found.level:.2g}, "
            f"so that {SIGNIFICANCE:.0%} of comparisons without drift find any)"
        )
    for index in found.indices:
        verdict = "changed" if index.drifted else "stable"
        yield (
            f"Population-stability index of the {index.name}: {index.value:.3f}, {verdict} (above "
            f"{max(CHANGED, index.by_chance):.3f} it counts as drift)"
        )
    if found.unknown is not None:
        before = "" if found.unknown.before is None else f", {found.unknown.before:.1%} before"
        low, high = found.unknown.interval
        yield f'Answered "unknown": {found.unknown.after:.1%} (95 % {low:.1%} to {high:.1%}){before}'
    yield "Drift: yes" if found.drifted else "Drift: none found"
