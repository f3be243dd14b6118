"""Drift: how far the latest answers are from those on the bundle's test split, as a population-stability index."""

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.names import REPORT
from effnet.system.files import read_json

_LATEST, _LEAST = 1000, 100
# A share of 0 would make the index infinite.
_LEAST_SHARE = 1e-4
# The bins of the report's reliability.
_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The answers on the test split: the number of images of each best class, and of each bin of its probability."""

    labels: Mapping[str, float]
    confidence: Mapping[int, float]


def expected_answers(folder: Path, class_names: Sequence[str]) -> Expected | None:
    """Return the answers on the test split that report.json holds; None for a bundle without them.

    Labels are the columns of the confusion matrix, confidence the bins of the reliability.
    """
    try:
        test = read_json(folder / REPORT)["test"]
        confusion = np.array(test["confusion"], np.float64)
        bins = {bin_of((each["low"] + each["high"]) / 2): float(each["images"]) for each in _bins(test)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if confusion.shape != (len(class_names), len(class_names)) or not np.isfinite(confusion).all():
        return None
    counts = confusion.sum(0)
    if not counts.sum() > 0 or not sum(bins.values()) > 0:
        return None
    return Expected(labels=dict(zip(class_names, counts.tolist(), strict=True)), confidence=bins)


def _bins(test: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = test["sureness"]["reliability"]
    return found


def bin_of(probability: float) -> int:
    """Return the number of the bin, from 0, in which a probability lies; bins are open below."""
    return min(_BINS - 1, max(0, math.ceil(probability * _BINS) - 1))


def stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the population-stability index of two distributions [bins], counts or shares.

    Below 0.1 they are near, above 0.25 they differ: the sum over the bins of (found - expected) x
    ln(found / expected), in shares.
    """
    shares = [np.maximum(each / each.sum(), _LEAST_SHARE) for each in (expected, found)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


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
