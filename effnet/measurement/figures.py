"""The figure of several outputs, by which training selects and reports compare."""

from collections.abc import Sequence

import numpy as np

from effnet.data.outputs import OutputSpec, placed


def mean_score(rows: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec]) -> float:
    """Return the mean of the outputs' scores; those that cannot be scored are left out, NaN if all are."""
    return float(np.nanmean(list(output_scores(rows, targets, specs).values())))


def output_scores(rows: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec]) -> dict[str, float]:
    """Return the score of each output by its name: 1 is perfect."""
    from sklearn.metrics import average_precision_score

    found = {}
    for place in placed(specs):
        part, target, spec = rows[:, place.columns], targets[:, place.targets], place.spec
        known = ~np.isnan(target).any(1)
        part, target = part[known], target[known]
        if not len(target):
            found[spec.name] = float("nan")
        elif spec.kind == "one":
            found[spec.name] = float((part.argmax(1) == target[:, 0]).mean())
        elif spec.kind == "many":
            seen = target.any(0)
            found[spec.name] = float(average_precision_score(target[:, seen], part[:, seen])) if seen.any() else 0.0
        else:
            guess = np.abs(target[:, 0] - np.median(target[:, 0])).mean() or 1.0
            found[spec.name] = max(-1.0, float(1 - np.abs(part[:, 0] - target[:, 0]).mean() / guess))
    return found
