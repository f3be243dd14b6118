"""Change the rate of samples by a fraction, in numpy."""

import functools
from fractions import Fraction

import numpy as np

# The filter reaches over this many samples of the lower rate on each side; beta is its Kaiser window's.
_REACH, _BETA = 10, 5.0
# No common pair of rates has a larger fraction; another pair is off by a millionth at most.
_MOST_DENOMINATOR = 1000
# Samples computed together: a few megabytes.
_TOGETHER = 2**14


def resampled(samples: np.ndarray, *, rate: int, new_rate: int) -> np.ndarray:
    """Return float32 samples [m] at `new_rate` Hz from float32 [n] at `rate` Hz, low-pass filtered.

    Source: scipy.signal.resample_poly with its own filter, of which this is the polyphase form: sample k of the result
    is the sum of the samples around k * rate / new_rate, with the filter's values at those distances as weights.
    """
    fraction = Fraction(new_rate, rate).limit_denominator(_MOST_DENOMINATOR)
    up, down = fraction.numerator, fraction.denominator
    if up == down or not len(samples):
        return samples
    if not up:
        raise ValueError(f"its rate, {rate:,} Hz, is too high for {new_rate:,} Hz")
    taps = _taps(up, down)
    count, reach = -(-len(samples) * up // down), taps.shape[1] // 2
    padded = np.pad(np.asarray(samples, np.float32), (reach, reach + 1))
    around = np.lib.stride_tricks.sliding_window_view(padded, taps.shape[1])
    result = np.empty(count, np.float32)
    for start in range(0, count, _TOGETHER):
        places = np.arange(start, min(count, start + _TOGETHER), dtype=np.int64) * down
        result[start : start + _TOGETHER] = np.einsum("kt,kt->k", around[places // up], taps[places % up])
    return result


@functools.lru_cache(maxsize=16)
def _taps(up: int, down: int) -> np.ndarray:
    """Return float32 [up, taps]: the weights of the samples around each of the `up` places between two samples."""
    most = max(up, down)
    half = _REACH * most
    distance = np.arange(-half, half + 1)
    kernel = np.sinc(distance / most) * np.kaiser(2 * half + 1, _BETA)
    kernel *= up / kernel.sum()
    reach = half // up + 1
    # Row p: the sample t - reach of the window lies p + (reach - t) * up steps before the place.
    steps = np.arange(up)[:, None] + (reach - np.arange(2 * reach + 1))[None] * up
    inside = np.abs(steps) <= half
    return np.where(inside, kernel[np.clip(steps + half, 0, 2 * half)], 0).astype(np.float32)
