"""Predictions for candidates that a plan has not measured, from those that it has."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.layers import named_layers
from effnet.bundle.formats import Precision
from effnet.measurement.speed.pace import DISTURBED
from effnet.planner.space import Candidate, weights_mb

# The budgets that need a measurement: a file holds more than its weights.
MEASURED = ("latency_ms", "memory_mb", "size_mb")
# Runtimes compute these in a separate, slow kernel; the others are fused into the convolution.
_SLOW = ("silu", "hard_swish")
# A latency above this factor of the prediction from at least this many others is doubtful.
_UNEXPECTED, _LEAST_OTHERS = 1.6, 4


def _computes_in(candidate: Candidate) -> str:
    """Return the arithmetic: weight-only quantization does not change it."""
    return candidate.precision if candidate.precision in ("int8", "bf16") else "fp32"


def _is_known(candidate: Candidate, kind: str) -> bool:
    return candidate.latency_ms is not None and _computes_in(candidate) == kind


def _parts_beside(candidate: Candidate) -> np.ndarray:
    """Return the contents of a file beside its weights, in parts: numbers for every channel, and nodes for every layer.

    Some activations take more nodes than others. On 120 candidates' ONNX files nodes explain the size to 1 %, in int8
    to 10 %.
    """
    layers = len(named_layers(candidate.spec))
    channels = sum(block.mid_channels + block.out_channels for block in candidate.spec.blocks)
    return np.array([channels / 1e3, layers, *(layers * (candidate.spec.activation == name) for name in _SLOW)])


class Predictions:
    """Latency and memory as linear functions of a network's cost, fitted to the measurements; and size.

    int8 and bfloat16 arithmetic have separate functions; each family has its own constants. `table` may change between
    calls.
    """

    def __init__(self, table: Sequence[Candidate]) -> None:
        self.table = table
        self._families = list(dict.fromkeys(candidate.family for candidate in table))
        self._features: dict[int, np.ndarray] = {}
        self._found_parts: dict[int, np.ndarray] = {}
        self._models: dict[tuple[str, str], np.ndarray | None] = {}

    def forget(self) -> None:
        """Refit the functions at the next prediction, after a new measurement."""
        self._models.clear()

    def of(self, index: int, key: str) -> float | None:
        """Return the predicted latency in ms, or memory or size in MB; None before anything is measured."""
        if key == "size_mb":
            return self._size(index)
        kind = _computes_in(self.table[index])
        model = self._model(key, kind)
        if model is None:  # lower precisions are rarely slower: fp32 is a cautious guess
            model = self._model(key, "fp32")
        return None if model is None else float(self._feature(index) @ model)

    def doubts(self, index: int, took: Mapping[int, float]) -> bool:
        """Return whether a candidate took longer than a larger relative, or than predicted from all others.

        `took` has the latencies of all measured candidates, in ms. Most likely, background load disturbed it.
        """
        if any(took[index] > DISTURBED * took[other] and self._is_larger(other, index) for other in took):
            return True
        expected = self._by_others(index)
        return expected is not None and took[index] > _UNEXPECTED * expected

    def _is_larger(self, index: int, other: int) -> bool:
        """Return whether one candidate is at least as large as another in every respect, and otherwise alike."""
        one, two = self.table[index], self.table[other]
        alike = (one.family, one.precision) == (two.family, two.precision)
        sizes = ((c.cost.macs, c.cost.activations, len(c.spec.blocks)) for c in (one, two))
        return alike and all(a >= b for a, b in zip(*sizes, strict=True))

    def _by_others(self, index: int) -> float | None:
        """Return the predicted latency of a candidate without its own measurement; None with too few others."""
        kind = _computes_in(self.table[index])
        others = [i for i, c in enumerate(self.table) if i != index and _is_known(c, kind)]
        model = self._fit("latency_ms", kind, without=index) if len(others) >= _LEAST_OTHERS else None
        return None if model is None else float(self._feature(index) @ model)

    def _model(self, key: str, kind: str) -> np.ndarray | None:
        if (key, kind) not in self._models:
            self._models[key, kind] = self._fit(key, kind)
        return self._models[key, kind]

    def _size(self, index: int) -> float:
        """Return the size of the weights and the usual rest of files of this precision."""
        candidate = self.table[index]
        key = ("size_mb", candidate.precision)
        if key not in self._models:
            self._models[key] = self._fit_size(candidate.precision)
        return weights_mb(candidate) + float(self._parts(index) @ self._models[key])

    def _fit_size(self, precision: Precision) -> np.ndarray:
        from scipy.optimize import nnls

        known = [(i, c) for i, c in enumerate(self.table) if c.latency_ms is not None and c.precision == precision]
        if not known:
            return np.zeros(2 + len(_SLOW))
        rows = np.stack([self._parts(i) for i, _ in known])
        found: np.ndarray = nnls(rows, [max(0.0, c.size_mb - weights_mb(c)) for _, c in known])[0]
        return found

    def _parts(self, index: int) -> np.ndarray:
        if index not in self._found_parts:
            self._found_parts[index] = _parts_beside(self.table[index])
        return self._found_parts[index]

    def _fit(self, key: str, kind: str, *, without: int | None = None) -> np.ndarray | None:
        """Fit non-negative coefficients to the measurements, each relative to its size."""
        from scipy.optimize import nnls

        known = [
            (i, value)
            for i, c in enumerate(self.table)
            if i != without and _is_known(c, kind) and (value := c.figures[key])
        ]
        if not known:
            return None
        values = np.array([value for _, value in known])
        rows = np.stack([self._feature(i) for i, _ in known])
        found: np.ndarray = nnls(rows / values[:, None], np.ones(len(values)))[0]
        return found

    def _feature(self, index: int) -> np.ndarray:
        if index not in self._features:
            candidate, found = self.table[index], self.table[index].cost
            slow = found.activations if candidate.spec.activation in _SLOW else 0
            shared = (
                self._parts(index)[1],  # layers
                found.macs / 1e6,
                found.activations / 1e6,
                slow / 1e6,
                found.folded_params / 1e6,
                weights_mb(candidate),
                found.peak_activations / 1e6,
            )
            own = [float(candidate.family == family) for family in self._families]
            self._features[index] = np.array([*own, *shared])
        return self._features[index]
