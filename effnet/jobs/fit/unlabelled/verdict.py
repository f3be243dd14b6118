"""The verdict on a student: whether it replaces the network that it is compared with on the validation images."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from effnet.data.datasets import Dataset
from effnet.measurement.acceptance import compared
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import log_losses
from effnet.measurement.paired import Paired
from effnet.runtimes.predictor import Predictor

# The validation images speak against a student whose answers are worse with this two-sided p-value, or whose mean loss
# is higher by this many standard errors.
_SPEAKING_P, _SPEAKING_ERRORS = 0.2, 1.0


def judge(before: Path, after: Path, dataset: Dataset, *, trusted: bool) -> tuple[Paired, bool]:
    """Return the comparison of two bundles on the validation images, and whether the second replaces the first.

    A `trusted` one does unless the images speak against it, another one only if it is better.
    """
    one, other = Predictor(before), Predictor(after)
    config = one.config
    (rows, indices), (others, _) = (predict_split(each, dataset.val) for each in (one, other))
    val = dataclasses.replace(dataset.val, sources=[dataset.val.sources[i] for i in indices],
                              labels=dataset.val.labels[indices], blocks=None)  # fmt: skip
    is_right = config.task_record.right
    assert is_right is not None
    found = compared(is_right(rows, val.labels), is_right(others, val.labels), val, config)
    rises = log_losses(others, val.labels) - log_losses(rows, val.labels)
    return found, not speaks_against(found, rises) if trusted else is_better(found, rises)


def speaks_against(found: Paired, rises: np.ndarray) -> bool:
    """Return whether validation images show that a student is worse: by its answers, or by the `rises` of its losses.

    A student of precise pseudo-labels is better as a rule, and a few dozen images are too weak a judge to demand that
    they show it: benchmarks/unlabelled.py has the accuracies of all students.
    """
    error = rises.std(ddof=1) / math.sqrt(len(rises)) if len(rises) > 1 else math.inf
    worse = found.drop > 0 and found.p_value < _SPEAKING_P
    return bool(worse or rises.mean() > _SPEAKING_ERRORS * error)


def is_better(found: Paired, rises: np.ndarray) -> bool:
    """Return whether a student gains more answers than it loses or, if it gains as many, has the lower loss."""
    return bool(found.drop < 0 or (found.drop == 0 and rises.mean() < 0))
