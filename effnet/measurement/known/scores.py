"""Scores of how known an image is, from its features and logits, in numpy; a higher one is more known.

The parameters are those of `KnownScore.arrays`; an exported file computes the same (runtimes.onnxruntime.known).
"""

from collections.abc import Mapping

import numpy as np

from effnet.errors import MissingExtraError
from effnet.tasks.known import SUMMED, KnownScore, Method

Arrays = Mapping[str, np.ndarray]

NEIGHBOURS = 5
"""The score of kNN is the similarity of the nearest but four."""

# The quantile of all training features at which ReAct clips.
_CLIP_AT = 0.9
# The most training images a class, and in all, of kNN: above it, their k-means centres.
_A_CLASS, _BANK = 50, 2_000
# The most axes of the covariance. Those of the smallest variances share their mean.
_AXES = 256
_LEAST_LENGTH, _LEAST_VARIANCE = 1e-12, 1e-12


def fit_score(
    method: Method,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    scales: Mapping[Method, tuple[float, float]] | None = None,
    seed: int = 0,
) -> KnownScore:
    """Return a score without a threshold from training `features` [images, channels] and `labels` [images].

    Each class in `labels` needs an image. `scales` are the mean and the standard deviation of each score of held-out
    images of known classes, which the sum needs: it is of scores less the mean, over the deviation. Sources: energy:
    Liu et al., NeurIPS 2020 (arXiv 2010.03759); ReAct: Sun et al., NeurIPS 2021 (arXiv 2111.12797); kNN: Sun et al.,
    ICML 2022 (arXiv 2204.06507), centred; MDS++: Mueller and Hein, ICML 2025 (arXiv 2505.18032), with the covariance of
    Ledoit and Wolf (2004).
    """
    match method:
        case "react":
            arrays = {"clip": np.array(np.quantile(features, _CLIP_AT), np.float32)}
        case "knn":
            arrays = _neighbours(features, labels, seed=seed)
        case "mahalanobis":
            arrays = _distances(features, labels)
        case "sum":
            assert scales is not None
            arrays = _neighbours(features, labels, seed=seed) | _distances(features, labels) | _weights(scales)
        case _:
            arrays = {}
    return KnownScore(method=method, arrays=arrays)


def score_values(
    score: KnownScore, features: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, temperature: float = 1.0
) -> np.ndarray:
    """Return the scores float64 [images] of `features` [images, channels].

    `weight` [classes, channels] and `bias` [classes] are the last layer's, before the `temperature`, which only the
    largest probability in the sum needs.
    """
    arrays, rows = score.arrays, features.astype(np.float64)
    match score.method:
        case "energy":
            return energy(rows @ weight.T + bias)
        case "react":
            return energy(np.minimum(rows, arrays["clip"]) @ weight.T + bias)
        case "knn":
            return _similarity(arrays, rows)
        case "mahalanobis":
            return _nearness(arrays, rows)
    logits = rows @ weight.T + bias
    parts = [log_odds(logits / temperature), energy(logits), _similarity(arrays, rows), _nearness(arrays, rows)]
    found: np.ndarray = np.stack(parts, axis=1) @ arrays["weights"].astype(np.float64) - arrays["offset"]
    return found


def _similarity(arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    near = _unit(rows - arrays["centre"]) @ arrays["bank"].T.astype(np.float64)
    count = int(arrays["neighbours"])
    return np.partition(near, -count, axis=1)[:, -count]


def _nearness(arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    apart = _unit(rows) - arrays["mean"]
    base = (np.square(apart).sum(1) - np.square(apart @ arrays["axes"].T).sum(1)) * arrays["scale"]
    found: np.ndarray = (apart @ arrays["linear"].T + arrays["constant"]).max(1) - base
    return found


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Return the log-odds of the largest probability, float64 [images], from at least two logits [images, classes].

    It grows with the probability, but does not round to 1.
    """
    ordered = np.sort(logits.astype(np.float64), axis=1)
    found: np.ndarray = ordered[:, -1] - energy(ordered[:, :-1])
    return found


def energy(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of exp(logits) [images, classes], float64 [images]."""
    most = logits.max(1, keepdims=True)
    return np.log(np.exp(logits - most).sum(1)) + most[:, 0]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _LEAST_LENGTH)


def _neighbours(features: np.ndarray, labels: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Return the centred directions of the training images, or of their k-means centres in each class."""
    rows = features.astype(np.float64)
    centre = rows.mean(0)
    directions = _unit(rows - centre)
    present = np.unique(labels)
    most = max(1, min(_A_CLASS, _BANK // len(present)))
    bank = np.concatenate([_centres(directions[labels == label], most, seed=seed) for label in present])
    return {
        "centre": centre.astype(np.float32),
        "bank": _half(_unit(bank)),
        "neighbours": np.array(min(NEIGHBOURS, len(bank)), np.int64),
    }


def _centres(rows: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    found: np.ndarray = KMeans(most, n_init=1, random_state=seed).fit(rows).cluster_centers_
    return found


def _distances(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the Gaussians of the classes, of one covariance, of features of length 1.

    With the mean m, the class means m + d, the inverse covariance P and u = x - m, the squared distance of x to a class
    is uPu - 2 dPu + dPd. P is 1/rest along all directions but the `axes`, and less along these. The score is minus the
    smallest distance, divided by the channels.
    """
    rows = _unit(features.astype(np.float64))
    mean, (present, places) = rows.mean(0), np.unique(labels, return_inverse=True)
    means = np.stack([rows[places == place].mean(0) for place in range(len(present))])
    directions, variances, rest = _covariance(rows - means[places])
    channels = rows.shape[1]
    apart = means - mean
    kept = 1 - rest / np.maximum(variances, rest)  # of the square along each axis, what the inverse leaves out
    inverted = (apart - (apart @ directions.T * kept) @ directions) / rest
    return {
        "mean": mean.astype(np.float32),
        "axes": _half(directions * np.sqrt(kept)[:, None]),
        "linear": (2 * inverted / channels).astype(np.float32),
        "constant": (-(inverted * apart).sum(1) / channels).astype(np.float32),
        "scale": np.array(1 / (rest * channels), np.float32),
    }


def _covariance(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the axes [axes, channels] of the largest variances, these [axes], and the variance of all others.

    It is the covariance of `centred` [images, channels], shrunk as Ledoit and Wolf do.
    """
    try:
        from sklearn.covariance import ledoit_wolf_shrinkage
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    images, channels = centred.shape
    shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
    if images < channels:
        # The eigenvectors of the smaller matrix of all pairs of images give the axes.
        found, left = np.linalg.eigh(centred @ centred.T / images)
        order = np.argsort(-found)[: min(_AXES, images)]
        order = order[found[order] > _LEAST_VARIANCE]
        directions = (centred.T @ left[:, order]).T
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), _LEAST_LENGTH)
    else:
        found, right = np.linalg.eigh(centred.T @ centred / images)
        order = np.argsort(-found)[:_AXES]
        directions = right[:, order].T
    variances = found[order]
    total = np.square(centred).sum() / images
    others = max(0.0, total - variances.sum()) / max(1, channels - len(order))
    floor = shrinkage * total / channels
    rest = max((1 - shrinkage) * others + floor, _LEAST_VARIANCE)
    return directions, (1 - shrinkage) * variances + floor, float(rest)


def _weights(scales: Mapping[Method, tuple[float, float]]) -> dict[str, np.ndarray]:
    weights = np.array([1 / max(scales[name][1], _LEAST_LENGTH) for name in SUMMED], np.float32)
    means = np.array([scales[name][0] for name in SUMMED])
    return {"weights": weights, "offset": np.array(means @ weights.astype(np.float64), np.float32)}


def _half(array: np.ndarray) -> np.ndarray:
    """Return float32 numbers that float16 holds exactly: files store them as such."""
    return array.astype(np.float16).astype(np.float32)
