"""Embeddings in two dimensions: their principal components."""

import numpy as np

_ROUNDS = 60
# The subspace that is iterated is wider than the answer, so that it converges if the third component is as large.
_WIDTH = 6


def project(vectors: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the first two principal components of float [images, channels], and the share of the variance of each.

    The components are float64 [images, 2], the larger one first, with signs that do not depend on the machine. They are
    found by subspace iteration, a small part of the work of a decomposition: a server does it beside requests.
    Source: Halko, Martinsson, Tropp, SIAM Review 53 (2011), algorithm 4.4.
    """
    centred = np.asarray(vectors, np.float64) - vectors.mean(0, dtype=np.float64)
    total = float((centred**2).sum())
    if len(centred) < 2 or total == 0:
        return np.zeros((len(centred), 2)), (0.0, 0.0)
    width = min(_WIDTH, *centred.shape)
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(centred.shape[1], width)))
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, _, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    axes = basis @ turned.T[:, :2]
    axes *= np.where(axes[np.abs(axes).argmax(0), range(axes.shape[1])] < 0, -1.0, 1.0)
    points = np.zeros((len(centred), 2))
    points[:, : axes.shape[1]] = centred @ axes
    shares = (points**2).sum(0) / total
    return points, (float(shares[0]), float(shares[1]))
