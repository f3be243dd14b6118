"""Statistics of drift: the population-stability index, and the two-sample test of Kolmogorov and Smirnov."""

import math

import numpy as np

from effnet.measurement.classification.calibration import BINS

STABLE, CHANGED = 0.1, 0.25
"""Below the first index two distributions are near, above the second they differ."""

# A share of 0 would make the index infinite.
_LEAST_SHARE = 1e-4
_DRAWS = 2000
# Terms of the series of Kolmogorov's distribution; the next one is below the smallest float.
_TERMS = 100


def bin_of(probability: float) -> int:
    """Return the number of the bin, from 0, in which a probability lies; bins are open below."""
    return min(BINS - 1, max(0, math.ceil(probability * BINS) - 1))


def stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the population-stability index of two distributions [bins], counts or shares.

    Below 0.1 they are near, above 0.25 they differ: the sum over the bins of (found - expected) x
    ln(found / expected), in shares.
    """
    shares = [np.maximum(each / each.sum(), _LEAST_SHARE) for each in (expected, found)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def index_by_chance(before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> float:
    """Return the index that chance alone exceeds once in a thousand times between two samples like these counts [bins].

    It is simulated: both are drawn from their common shares. In large samples it is chi-squared of bins - 1 degrees of
    freedom times (1 / images + 1 / images), but bins that are empty by chance make it larger.
    """
    shares = (before + after) / (before + after).sum()
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(round(each.sum()), shares, _DRAWS) / each.sum() for each in (before, after)]
    first, second = (np.maximum(each, _LEAST_SHARE) for each in drawn)
    return float(np.quantile(((second - first) * np.log(second / first)).sum(1), 0.999))


def ks_distance(before: np.ndarray, after: np.ndarray) -> float:
    """Return the largest difference of two samples' shares of values up to any one, of float [values] each."""
    before, after = np.sort(before), np.sort(after)
    both = np.concatenate([before, after])
    shares = [np.searchsorted(each, both, side="right") / len(each) for each in (before, after)]
    return float(np.abs(shares[0] - shares[1]).max())


def ks_p_value(distance: float, before: int, after: int) -> float:
    """Return the two-sided p-value of a distance of samples of these sizes, from Kolmogorov's limit distribution.

    Source: Stephens 1970, J. R. Stat. Soc. B 32, 115-122, whose correction makes the limit good from sizes of 4 on.
    """
    root = math.sqrt(before * after / (before + after))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series converges slowly, and the value is 1 to twelve digits
        return 1.0
    number = np.arange(1, _TERMS + 1)
    terms = np.where(number % 2, 1, -1) * np.exp(-2 * (number * scaled) ** 2)
    return float(np.clip(2 * terms.sum(), 0, 1))
