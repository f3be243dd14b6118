"""A linear map from image features to text vectors: ridge regression, whose penalty the validation pairs choose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.measurement.retrieval import ranks
from effnet.runtimes.results import unit_rows
from effnet.words.space import whitening

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Penalties as shares of the features' mean variance, the strongest first."""

WHITENINGS = (float("inf"), 1.0)
"""Strengths of effnet.words.space.whitening."""

# The share of the validation figure that a stronger penalty may cost.
_GIVEN_UP = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map:
    """A linear map: embedding = features @ weight.T + bias; `weight` [width, channels], `bias` [width].

    `mean` [width] and `matrix` [width, width] are those of the space (effnet.words.space). `penalty` and `whitened`,
    the strength, were chosen by the mean reciprocal rank of captions on the validation pairs, `val_mrr`.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    matrix: np.ndarray
    penalty: float
    whitened: float
    val_mrr: float


def fit_map(
    features: np.ndarray,
    texts: np.ndarray,
    *,
    val_features: np.ndarray,
    val_texts: np.ndarray,
    penalties: Sequence[float] = PENALTIES,
    whitenings: Sequence[float] = WHITENINGS,
) -> Map:
    """Return the map from `features` [pairs, channels] to the vectors of `texts`, float32 [pairs, width] of length 1.

    The whitening is that of the best mean reciprocal rank on the validation pairs, the penalty the strongest one that
    loses at most 15 % of it: validation has the words of training, and a stronger penalty generalises better to
    words that no caption had (benchmarks/words.py: unseen types).
    """
    exact = features.astype(np.float64)
    centre = exact.mean(0)
    exact -= centre
    variances, axes = np.linalg.eigh(exact.T @ exact / len(exact))
    turned = exact @ axes
    found: list[Map] = []
    for strength in whitenings:
        mean, matrix = whitening(texts, strength=strength)
        goals, val_goals = (unit_rows((rows - mean) @ matrix) for rows in (texts, val_texts))
        offset = goals.mean(0, dtype=np.float64)
        shared = turned.T @ (goals - offset) / len(exact)
        for penalty in penalties:
            floor = max(penalty * variances.mean(), 1e-12)
            weight = (axes @ (shared / (np.maximum(variances, 0) + floor)[:, None])).T
            bias = offset - weight @ centre
            places = ranks(unit_rows(val_features @ weight.T + bias), val_goals)
            made = Map(
                weight=weight.astype(np.float32, order="C"), bias=bias.astype(np.float32), mean=mean, matrix=matrix,
                penalty=penalty, whitened=strength, val_mrr=float((1 / (1 + places)).mean()),
            )  # fmt: skip
            found.append(made)
    best = max(found, key=lambda one: one.val_mrr)
    least = (1 - _GIVEN_UP) * best.val_mrr
    within = [one for one in found if one.whitened == best.whitened and one.val_mrr >= least]
    return max(within, key=lambda one: one.penalty)
