"""Confidence intervals of a share that was counted on a number of images."""

import math

import numpy as np

RESAMPLES = 2000
Z = 1.959964
"""The half-width of the central 95 % of a normal distribution, in standard deviations."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the Wilson score interval of a share of `right` in `count`, at 95 %.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.
    """
    share = right / count
    middle = share + Z * Z / (2 * count)
    spread = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    # Rounding must not move an end that is exact.
    return (middle - spread) / scale if right else 0.0, (middle + spread) / scale if right < count else 1.0


def bootstrap(right: int, count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a share of `right` in `count`.

    The number of right images among `count` drawn with replacement is binomial, so it is drawn directly. If all
    are right, the interval has no width: use the Wilson interval then. Source: Efron, Ann. Stat. 7 (1979), 1-26.
    """
    shares = np.random.default_rng(seed).binomial(count, right / count, resamples) / count
    low, high = np.percentile(shares, (2.5, 97.5))
    return float(low), float(high)
