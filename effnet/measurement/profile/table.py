"""The latency table: from a profile's measured networks to the latency and memory of any network.

A network's time is a sum of work (features.py) at non-negative rates. The rates fit the profile's networks best, in
relative terms and robustly: background load only ever adds time. Residuals that similar networks share, such as those
of an activation that prevents fusion, are smoothed over them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from effnet.arch.spec import Activation, ArchSpec
from effnet.bundle.formats import Precision
from effnet.errors import InputError
from effnet.measurement.profile.features import latency_features, memory_features
from effnet.measurement.profile.profile import DeviceProfile, Measured
from effnet.measurement.profile.regression import likeness, median_error, non_negative_least_squares

Features = Callable[[ArchSpec], dict[str, float]]

_LATENCY_RIDGE, _MEMORY_RIDGE = 1e-3, 1e-4
_REWEIGHTINGS = 8
# Errors beyond these multiples of the typical one count less; upward errors are likelier to be noise.
_UPWARD, _DOWNWARD = 1.5, 3.0
_LEAST_COMMON_ERROR = 0.02
# The scales of similarity: the share of a network's time that lies elsewhere, and the ratio of its speed to another's.
_SHARE_SCALE, _SIZE_SCALE, _ACTIVATION_SCALE = 4.0, 0.4, 0.7
_SMOOTHING, _MOST_CORRECTION = 1.0, 0.3
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """The prediction for a network: milliseconds per image, and peak memory beyond the idle runtime in 10^6 bytes.

    `memory_mb` is None if the profile measured no memory in this precision.
    """

    latency_ms: float
    memory_mb: float | None


class LinearModel:
    """Rates of work, fitted to measured amounts; `names` are its features, in order."""

    def __init__(
        self, specs: Sequence[ArchSpec], measured: Sequence[float], *, features: Features, ridge: float, smooth: bool
    ) -> None:
        self._features = features
        rows = [features(spec) for spec in specs]
        self.names = sorted({name for row in rows for name in row})
        self._index = {name: number for number, name in enumerate(self.names)}
        matrix, target = np.array([self._vector(row) for row in rows]), np.asarray(measured, dtype=float)
        self.rates = _robust_rates(matrix, target, ridge)
        self._smooth = smooth
        if smooth:
            sums = matrix @ self.rates
            self._places = np.array([self._place(s, v, t) for s, v, t in zip(specs, matrix, sums, strict=True)])
            missed = np.clip(np.log(target / sums), -_MOST_CORRECTION, _MOST_CORRECTION)
            alike = likeness(self._places, self._places)
            alike[np.diag_indices_from(alike)] += _SMOOTHING
            self._corrections = np.linalg.solve(alike, missed)

    def _vector(self, row: dict[str, float]) -> np.ndarray:
        """Return the amounts of work in order; work of a kind that is not in the profile is left out."""
        vector = np.zeros(len(self.names))
        index = self._index
        for name, amount in row.items():
            number = index.get(name)
            if number is not None:
                vector[number] = amount
        return vector

    def _place(self, spec: ArchSpec, vector: np.ndarray, total: float) -> np.ndarray:
        shares = _SHARE_SCALE * vector * self.rates / total
        activation = [_ACTIVATION_SCALE * (spec.activation == name) for name in get_args(Activation)]
        return np.concatenate([shares, [_SIZE_SCALE * math.log(total)], activation])

    def predict(self, spec: ArchSpec) -> float:
        """Return the predicted amount for `spec`."""
        vector = self._vector(self._features(spec))
        total = max(float(vector @ self.rates), 1e-9)
        if not self._smooth:
            return total
        alike = likeness(self._place(spec, vector, total)[None], self._places)[0]
        return total * math.exp(min(max(float(alike @ self._corrections), -_MOST_CORRECTION), _MOST_CORRECTION))


def _robust_rates(matrix: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Return non-negative rates that minimise relative errors, with less weight on large ones."""
    relative = matrix / target[:, None]
    scale = relative.mean(0)
    scale[scale == 0] = 1.0  # work that is named, but that none of these networks do
    relative = relative / scale
    weights = np.ones(len(target))
    for _ in range(_REWEIGHTINGS):
        rates = non_negative_least_squares(relative * weights[:, None], weights, ridge=ridge)
        error = 1.0 - relative @ rates  # above 0: slower than the sum
        common = max(_LEAST_COMMON_ERROR, 1.48 * float(np.median(np.abs(error))))
        bound = common * np.where(error > 0, _UPWARD, _DOWNWARD)
        weights = np.sqrt(bound / np.maximum(np.abs(error), bound))
    return rates / scale


class LatencyTable:
    """Predictions from one profile, in every precision that it was measured in."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self._latency: dict[str, LinearModel] = {}
        self._memory: dict[str, LinearModel] = {}
        for precision in dict.fromkeys(row.precision for row in measured):
            rows = [row for row in measured if row.precision == precision]
            self._latency[precision] = fit_latency([r.spec for r in rows], [r.latency_ms for r in rows])
            known = [row for row in rows if row.memory_mb is not None]
            if known:
                self._memory[precision] = fit_memory([r.spec for r in known], [r.memory_mb or 0.0 for r in known])

    def predict(self, spec: ArchSpec, *, precision: Precision = "fp32") -> Predicted:
        """Return the prediction for `spec`, for one image at its own resolution.

        Raises InputError for a precision that the profile was not measured in.
        """
        if precision not in self._latency:
            raise InputError(
                f"the profile must have been measured in {precision}; it was in {', '.join(self._latency)}: measure it "
                f"with `effnet profile --precision {precision}`"
            )
        memory = self._memory.get(precision)
        return Predicted(
            latency_ms=self._latency[precision].predict(spec), memory_mb=memory.predict(spec) if memory else None
        )


def fit_latency(specs: Sequence[ArchSpec], measured_ms: Sequence[float]) -> LinearModel:
    """Return the model of these networks' latencies, in milliseconds."""
    return LinearModel(specs, measured_ms, features=latency_features, ridge=_LATENCY_RIDGE, smooth=True)


def fit_memory(specs: Sequence[ArchSpec], measured_mb: Sequence[float]) -> LinearModel:
    """Return the model of these networks' memory, in 10^6 bytes."""
    return LinearModel(specs, measured_mb, features=memory_features, ridge=_MEMORY_RIDGE, smooth=False)


# The latest tables. A lookup by a profile's value would take longer than a prediction.
_KEPT = 4
_kept: list[tuple[tuple[Measured, ...], LatencyTable]] = []


def table_of(profile: DeviceProfile) -> LatencyTable:
    """Return the table of `profile`, made once."""
    for measured, table in _kept:
        if measured is profile.measured:
            return table
    _kept.insert(0, (profile.measured, LatencyTable(profile.measured)))
    del _kept[_KEPT:]
    return _kept[0][1]


def predict(spec: ArchSpec, profile: DeviceProfile, *, precision: Precision = "fp32") -> Predicted:
    """Return the prediction for `spec` on the device of `profile`, in its runtime and with its threads.

    The table is made at the first call for a profile and kept. Raises InputError for a precision that the profile was
    not measured in.
    """
    return table_of(profile).predict(spec, precision=precision)


def left_out_error(
    rows: Sequence[Measured],
    *,
    fit: Callable[[Sequence[ArchSpec], Sequence[float]], LinearModel],
    value: Callable[[Measured], float],
    counts: Callable[[Measured], bool],
) -> float | None:
    """Return the median error of predictions for the rows that count, each from a fit to the other folds' rows.

    None if too few count.
    """
    if sum(map(counts, rows)) < 2 * _FOLDS:
        return None
    predicted, measured = [], []
    for fold in range(_FOLDS):
        rest = [row for number, row in enumerate(rows) if number % _FOLDS != fold]
        model = fit([row.spec for row in rest], [value(row) for row in rest])
        for row in rows[fold::_FOLDS]:
            if counts(row):
                predicted.append(model.predict(row.spec))
                measured.append(value(row))
    return median_error(predicted, measured)
