"""The nearest vectors of a query, by brute force: exact, and fast enough for a million."""

import numpy as np

# Rows per product: the scores of a part stay in the cache, and no second copy of the vectors is made.
_ROWS = 16_384


def nearest_rows(vectors: np.ndarray, query: np.ndarray, *, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the `top` largest cosines, largest first, and the cosines, float32.

    `vectors` are float32 or float16 [rows, width] of length 1, and `query` float32 [width] too. Of equal cosines the
    earlier row comes first.
    """
    cosines = np.empty(len(vectors), np.float32)
    if vectors.dtype == np.float32:
        np.matmul(vectors, query, out=cosines)
    else:
        for start in range(0, len(vectors), _ROWS):
            part = slice(start, start + _ROWS)
            cosines[part] = vectors[part].astype(np.float32) @ query
    count = min(top, len(cosines))
    if not count:
        return np.empty(0, np.int64), cosines[:0]
    if count < len(cosines):
        least = np.partition(cosines, len(cosines) - count)[len(cosines) - count]
        candidates = np.flatnonzero(cosines >= least)
    else:
        candidates = np.arange(len(cosines))
    order = candidates[np.argsort(-cosines[candidates], kind="stable")][:count]
    return order, cosines[order]
