"""Images near each other, and images far from all others, by their features."""

from collections.abc import Iterator

import numpy as np

# Products of features are computed for so many images at a time.
_ROWS = 1024
_NEIGHBOURS = 5
# At most this share of the images may have a neighbour above the limit that shows something else.
_FALSE = 0.01
_LEAST_COSINE = 0.8


def near_pairs(features: np.ndarray, *, share: float = _FALSE) -> tuple[list[tuple[int, int, float]], float]:
    """Return the pairs of images with the nearest features, (first, second, cosine), nearest first, and the limit.

    The limit follows from the data: the second nearest image of most is no copy of it, and a `share` of these cosines
    are above the limit. It is at least 0.8.
    """
    rows = unit_features(features)
    if len(rows) < _NEIGHBOURS:
        return [], 1.0
    second = [np.partition(cosines, -3, axis=1)[:, -3] for _, cosines in _products(rows)]  # the first is the image
    limit = max(_LEAST_COSINE, float(np.quantile(np.concatenate(second), 1 - share)))
    found: list[tuple[int, int, float]] = []
    for first, cosines in _products(rows):
        ones, others = np.nonzero(cosines >= limit)
        pairs = zip(ones.tolist(), others.tolist(), strict=True)
        found += [(first + i, j, float(cosines[i, j])) for i, j in pairs if first + i < j]
    return sorted(found, key=lambda pair: -pair[2]), limit


def outlier_distances(features: np.ndarray) -> np.ndarray:
    """Return the mean cosine distance of each image [images] to its nearest five, of centred features."""
    rows = unit_features(features - features.mean(0))
    kept = min(_NEIGHBOURS, len(rows) - 1)
    if kept < 1:
        return np.zeros(len(rows))
    found = np.empty(len(rows))
    for first, cosines in _products(rows):
        own = np.arange(len(cosines))
        cosines[own, first + own] = -np.inf
        found[first : first + len(cosines)] = 1 - np.partition(cosines, -kept, axis=1)[:, -kept:].mean(1)
    return found


def unit_features(features: np.ndarray) -> np.ndarray:
    """Return features [images, channels], each of length 1."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _products(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(rows), _ROWS):
        yield first, rows[first : first + _ROWS] @ rows.T
