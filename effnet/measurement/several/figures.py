"""The figure of several outputs, by which training selects and reports compare; numpy alone.

Rows are what a file returns, [images, columns]: probabilities and numbers, as `placed` of effnet.data.several.outputs
places them. Targets are [images, target columns]; NaN is unknown and never counts.
"""

from collections.abc import Sequence

import numpy as np

from effnet.data.several.outputs import OutputSpec, placed
from effnet.measurement.several.multilabel import mean_average_precision, mean_known
from effnet.tasks.costs import costs_of, decide


def mean_score(rows: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec]) -> float:
    """Return the mean of the outputs' scores; those that cannot be scored are left out, NaN if all are."""
    return mean_known(np.array(list(output_scores(rows, targets, specs).values())))


def output_scores(rows: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec]) -> dict[str, float]:
    """Return the score of each output by its name: 1 is perfect.

    That is the accuracy of classes, the mean average precision of tags, and the `skill` of numbers. NaN for an output
    without a known value, and for tags that no image has.
    """
    found = {}
    for place in placed(specs):
        part, target, spec = rows[:, place.columns], targets[:, place.targets], place.spec
        known = ~np.isnan(target).all(1)
        part, target = part[known], target[known]
        if not len(target):
            found[spec.name] = float("nan")
        elif spec.kind == "one":
            found[spec.name] = float((decide(part, costs_of(spec)) == target[:, 0]).mean())
        elif spec.kind == "many":
            found[spec.name] = mean_average_precision(part, target)
        else:
            found[spec.name] = skill(part[:, 0], target[:, 0])
    return found


def skill(numbers: np.ndarray, targets: np.ndarray) -> float:
    """Return 1 - MAE / MAE of the targets' median, at least -1: 1 is perfect, 0 no better than the median.

    If all targets are equal it is 0 for exact numbers, else -1.
    """
    error = float(np.abs(numbers - targets).mean())
    guess = float(np.abs(targets - np.median(targets)).mean())
    if not guess:
        return 0.0 if not error else -1.0
    return max(-1.0, 1 - error / guess)
