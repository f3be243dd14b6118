"""Drift: how far the latest answers are from those on the bundle's test split, as a population-stability index."""

from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

_LATEST, _LEAST = 1000, 100
# A share of 0 would make the index infinite.
_LEAST_SHARE = 1e-4


def stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the population-stability index of two distributions [bins], counts or shares.

    Below 0.1 they are near, above 0.25 they differ. Source: the sum over the bins of (found - expected) x
    ln(found / expected), in shares.
    """
    shares = [np.maximum(each / each.sum(), _LEAST_SHARE) for each in (expected, found)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


class Drift:
    """The latest answers of a version against `expected`, the number of test images of each answer."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self._expected = dict(expected)
        self._latest: deque[str] = deque(maxlen=_LATEST)

    def add(self, answer: str) -> None:
        """Record an answer."""
        self._latest.append(answer)

    def index(self) -> float | None:
        """Return the index of the latest 1,000 answers, None before the first 100."""
        if len(self._latest) < _LEAST or sum(self._expected.values()) <= 0:
            return None
        counts = Counter(list(self._latest))
        names = list(dict.fromkeys([*self._expected, *counts]))
        expected = np.array([self._expected.get(name, 0.0) for name in names], np.float64)
        return stability_index(expected, np.array([counts.get(name, 0) for name in names], np.float64))
