"""A linear head on the features of a frozen backbone: a convex problem, whose one solution is all but reached."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError, MissingExtraError

# Strengths of the penalty on half the squared weights, beside the mean loss. On the features of ImageNet backbones
# accuracy hardly depends on them; the loss does, and decides.
PENALTIES = (1e-2, 1e-3)
_MOST_ITERATIONS = 200
# Channels of next to no spread, as a share of the largest, would be blown up by dividing by it.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias; `weight` [classes, channels], `bias` [classes].

    `penalty` is the one of those tried that did best on the validation features, with these results there; 0 for a
    head that was not fitted here.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    val_loss: float
    val_accuracy: float


def train_head(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    penalties: Sequence[float] = PENALTIES,
) -> Head:
    """Returns multinomial logistic regression on `features` [pictures, channels], standardised channel by channel.

    Of the `penalties` the one of least loss on the validation features is taken. The weights are given back for
    features as they are. Raises DataError for a class without a picture in `labels`.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    absent = np.setdiff1d(np.arange(num_classes), labels)
    if len(absent):
        raise DataError(
            f"a head needs a picture of each of {num_classes} classes that can be read; there is none of class "
            f"{', '.join(map(str, absent[:3]))} among {len(labels)}"
        )
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    spread = np.maximum(spread, _LEAST_SPREAD * spread.max() or 1.0)
    scaled = ((features - mean) / spread).astype(np.float32, copy=False)
    best: Head | None = None
    model = LogisticRegression(max_iter=_MOST_ITERATIONS, warm_start=True)
    for penalty in penalties:
        model.set_params(C=1 / (penalty * len(labels)))
        _fit_quietly(model, scaled, labels)
        head = _to_head(model, mean, spread, num_classes, penalty, val_features, val_labels)
        if best is None or head.val_loss < best.val_loss:
            best = head
    assert best is not None
    return best


def _fit_quietly(model: object, features: np.ndarray, labels: np.ndarray) -> None:
    """Fits, without a warning where the last digits of a weakly penalised solution are not reached."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)  # type: ignore[attr-defined]


def _to_head(
    model: object,
    mean: np.ndarray,
    spread: np.ndarray,
    num_classes: int,
    penalty: float,
    val_features: np.ndarray,
    val_labels: np.ndarray,
) -> Head:
    scaled_weight, scaled_bias = model.coef_, model.intercept_  # type: ignore[attr-defined]
    if num_classes == 2:  # scikit-learn keeps one row, the difference of the two
        scaled_weight, scaled_bias = (
            np.concatenate([-scaled_weight, scaled_weight]) / 2,
            np.array([-0.5, 0.5]) * scaled_bias,
        )
    weight = scaled_weight / spread
    return scored_head(weight, scaled_bias - weight @ mean, val_features, val_labels, penalty=penalty)


def scored_head(
    weight: np.ndarray, bias: np.ndarray, val_features: np.ndarray, val_labels: np.ndarray, *, penalty: float = 0.0
) -> Head:
    """Returns a classifier, [classes, channels] and [classes], with what it reaches on the validation features."""
    loss, accuracy = _score(val_features @ weight.T + bias, val_labels)
    return Head(
        weight=weight.astype(np.float32, order="C"),
        bias=bias.astype(np.float32),
        penalty=penalty,
        val_loss=loss,
        val_accuracy=accuracy,
    )


def _score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(1) == labels).mean())
