"""The answers of a bundle on its test split, as far as its report.json holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.names import REPORT
from effnet.measurement.drift.statistics import bin_of
from effnet.system.files import read_json


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
