"""Drift: how far the latest answers are from those on the bundle's test split, as a population-stability index."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effnet.measurement.drift.expected import Expected
from effnet.measurement.drift.statistics import bin_of, stability_index

_LATEST, _LEAST = 1000, 100


@dataclass(slots=True, kw_only=True)
class Drift:
    """The latest 1,000 answers of a version against the expected ones."""

    expected: Expected
    _labels: deque[str] = field(default_factory=lambda: deque(maxlen=_LATEST))
    _confidence: deque[int] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def add(self, label: str, probability: float) -> None:
        """Record an answer."""
        self._labels.append(label)
        self._confidence.append(bin_of(probability))

    def indices(self) -> dict[str, float]:
        """Return the index of the labels and that of the confidence; none before the first 100 answers."""
        if len(self._labels) < _LEAST:
            return {}
        return {
            "label": _index(self.expected.labels, self._labels),
            "confidence": _index(self.expected.confidence, self._confidence),
        }


def _index(expected: Mapping[Any, float], latest: Sequence[Any] | deque[Any]) -> float:
    counts = Counter(list(latest))
    names = list(dict.fromkeys([*expected, *counts]))
    wanted = np.array([expected.get(name, 0.0) for name in names], np.float64)
    return stability_index(wanted, np.array([counts.get(name, 0) for name in names], np.float64))
