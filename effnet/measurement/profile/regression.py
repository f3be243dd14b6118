"""Times as sums of work at non-negative rates, and the residuals of such a sum, smoothed over similar networks."""

from collections.abc import Sequence

import numpy as np


def non_negative_least_squares(matrix: np.ndarray, target: np.ndarray, *, ridge: float) -> np.ndarray:
    """Return the x >= 0 that minimises |matrix x - target|^2 + ridge |x|^2.

    Source: Lawson and Hanson 1974, chapter 23, on the normal equations.
    """
    gram, right = matrix.T @ matrix, matrix.T @ target
    gram[np.diag_indices_from(gram)] += ridge
    x, active = np.zeros(len(right)), np.zeros(len(right), dtype=bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(right).max()))
    for _ in range(3 * len(right)):
        slope = np.where(active, -np.inf, right - gram @ x)
        best = int(slope.argmax())
        if slope[best] <= tolerance:
            break
        active[best] = True
        while True:
            wanted = np.zeros_like(x)
            wanted[active] = np.linalg.solve(gram[np.ix_(active, active)], right[active])
            if (wanted[active] > 0).all():
                x = wanted
                break
            falling = active & (wanted <= 0)
            step = float((x[falling] / (x[falling] - wanted[falling])).min())
            x = x + step * (wanted - x)
            active &= x > tolerance * 1e-3
            x[~active] = 0.0
    return x


def likeness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the similarity of the rows of two arrays: 1 for equal ones, towards 0 with their distance."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.exp(-0.5 * np.maximum(squares, 0.0))


def median_error(predicted: Sequence[float] | np.ndarray, measured: Sequence[float] | np.ndarray) -> float:
    """Return the median of |predicted / measured - 1|."""
    return float(np.median(np.abs(np.asarray(predicted) / np.asarray(measured) - 1)))
