"""A linear head on the features of a frozen backbone: a convex problem, whose one solution is all but reached."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError, MissingExtraError

# Strengths of the penalty on half the squared weights, beside the mean loss, the strongest first: each solution is the
# start of the next. On the features of ImageNet backbones accuracy hardly depends on them; the loss does, and decides.
# Stronger ones make no smaller file weights: the temperature, which is folded into them, takes back what they shrink.
PENALTIES = (1e-2, 1e-3)
_MOST_ITERATIONS = 200
# Channels of next to no spread, as a share of the largest, would be blown up by dividing by it. A floor of 3e-2 makes
# weights smaller still (CIFAR images, enlarged: 2.0 for 19), but costs accuracy there, and 16 bits hold both alike.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias; `weight` [classes, channels], `bias` [classes].

    `penalty` is the one of those tried that the validation features chose, with these results there; 0 for a head that
    was not fitted here.
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

    Of the `penalties` the strongest is taken whose loss on the validation features is within one standard error of the
    least: what chance can explain is not worth larger weights, which fewer bits hold less well. The weights are given
    back for features as they are. Raises DataError for a class without a picture in `labels`.

    Source of the rule: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3.
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
    heads: list[Head] = []
    model = LogisticRegression(max_iter=_MOST_ITERATIONS, warm_start=True)
    for penalty in penalties:
        model.set_params(C=1 / (penalty * len(labels)))
        _fit_quietly(model, scaled, labels)
        heads.append(_to_head(model, mean, spread, num_classes, penalty, val_features, val_labels))
    best = min(heads, key=lambda head: head.val_loss)
    losses = _losses(val_features @ best.weight.T + best.bias, val_labels)
    # One image has no spread: the least loss decides then.
    error = losses.std(ddof=1) / np.sqrt(len(losses)) if len(losses) > 1 else 0.0
    within = [head for head in heads if head.val_loss <= best.val_loss + error]
    return max(within, key=lambda head: head.penalty, default=best)


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
    logits = val_features @ weight.T + bias
    return Head(
        weight=weight.astype(np.float32, order="C"),
        bias=bias.astype(np.float32),
        penalty=penalty,
        val_loss=float(_losses(logits, val_labels).mean()),
        val_accuracy=float((logits.argmax(1) == val_labels).mean()),
    )


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each image, [images], for logits [images, classes]."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels]
