"""A linear probe: multinomial logistic regression on the features of a frozen backbone, a convex problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError, MissingExtraError
from effnet.measurement.classification.recall import by_class
from effnet.training.recipe.balance import class_weights, held_out_weights, logit_offset
from effnet.training.recipe.schema import NOT_BALANCED, Balance

# Strengths of the L2 penalty (half the squared weights, against the mean loss), the strongest first: each solution is
# the warm start of the next. On features of ImageNet backbones accuracy hardly depends on them; the loss does, and
# decides. Stronger ones give no smaller weights in the file: the temperature, folded into them, undoes the shrinkage.
PENALTIES = (1e-2, 1e-3)
_MOST_ITERATIONS = 200
# Dividing by a standard deviation near 0 (as a share of the largest) would blow up a channel. A floor of 3e-2 gives
# even smaller weights (enlarged CIFAR images: 2.0 instead of 19), but costs accuracy there, and fp16 holds both alike.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias; `weight` [classes, channels], `bias` [classes].

    `penalty` is the one chosen on the validation features, with these results there; 0 for a head that was not fitted
    here.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    val_loss: float
    val_figure: float
    val_balanced_figure: float

    def score(self, balance: Balance) -> tuple[float, float]:
        """Return a key that is larger for a better head: accuracy, then minus the loss; balanced with `balance`."""
        return self.val_balanced_figure if balance.removed else self.val_figure, -self.val_loss


def train_head(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    penalties: Sequence[float] = PENALTIES,
    balance: Balance = NOT_BALANCED,
) -> Head:
    """Return multinomial logistic regression on `features` [images, channels], standardised per channel.

    With `balance` the bias is adjusted or the images are weighted (for `sample` too, to which weights are equivalent
    on average); the validation loss then balances the classes in the same way.

    The strongest of the `penalties` is chosen whose validation loss is within one standard error of the lowest: a gain
    within chance is not worth larger weights, which quantize less well. The weights are returned for features that are
    not standardised. Raises DataError for a class without an image in `labels`.

    Source of the rule: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    absent = np.setdiff1d(np.arange(num_classes), labels)
    if len(absent):
        raise DataError(
            f"a head needs a readable image of each of {num_classes} classes; there is none of class "
            f"{', '.join(map(str, absent[:3]))} among {len(labels)}"
        )
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    spread = np.maximum(spread, _LEAST_SPREAD * spread.max() or 1.0)
    scaled = ((features - mean) / spread).astype(np.float32, copy=False)
    offset: np.ndarray | float = 0.0
    weights = None
    if balance.method == "adjust":
        offset = logit_offset(labels, num_classes=num_classes, strength=balance.strength)
    elif balance.method != "none":
        weights = class_weights(labels, num_classes=num_classes, strength=balance.strength)[labels]
    val_weights = held_out_weights(val_labels, train_labels=labels, num_classes=num_classes, removed=balance.removed)
    heads: list[Head] = []
    model = LogisticRegression(max_iter=_MOST_ITERATIONS, warm_start=True)
    for penalty in penalties:
        model.set_params(C=1 / (penalty * len(labels)))
        _fit_quietly(model, scaled, labels, weights)
        weight, bias = _weights_of(model, mean, spread, num_classes)
        heads.append(
            scored_head(weight, bias - offset, val_features, val_labels, penalty=penalty, val_weights=val_weights)
        )
    best = min(heads, key=lambda head: head.val_loss)
    losses = _losses(val_features @ best.weight.T + best.bias, val_labels, val_weights)
    # A single image has no standard error: the lowest loss decides then.
    deviation = losses.std(ddof=1) / np.sqrt(len(losses)) if len(losses) > 1 else 0.0
    within = [head for head in heads if head.val_loss <= best.val_loss + deviation]
    return max(within, key=lambda head: head.penalty, default=best)


def _fit_quietly(model: object, features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> None:
    """Fit, without a warning if the last digits of a weakly penalised solution do not converge."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels, sample_weight=weights)  # type: ignore[attr-defined]


def _weights_of(model: object, mean: np.ndarray, spread: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of a solution for features that are not standardised."""
    scaled_weight, scaled_bias = model.coef_, model.intercept_  # type: ignore[attr-defined]
    if num_classes == 2:  # scikit-learn keeps one row, the difference of the two
        scaled_weight, scaled_bias = (
            np.concatenate([-scaled_weight, scaled_weight]) / 2,
            np.array([-0.5, 0.5]) * scaled_bias,
        )
    weight = scaled_weight / spread
    return weight, scaled_bias - weight @ mean


def scored_head(
    weight: np.ndarray,
    bias: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    penalty: float = 0.0,
    val_weights: np.ndarray | None = None,
) -> Head:
    """Return a classifier, [classes, channels] and [classes], with its scores on the validation features.

    `val_weights` [images] of mean 1 weight the loss.
    """
    logits = val_features @ weight.T + bias
    is_right = logits.argmax(1) == val_labels
    return Head(
        weight=weight.astype(np.float32, order="C"),
        bias=bias.astype(np.float32),
        penalty=penalty,
        val_loss=float(_losses(logits, val_labels, val_weights).mean()),
        val_figure=float(is_right.mean()),
        val_balanced_figure=by_class(is_right, val_labels).balanced_accuracy,
    )


def known_head(
    weight: np.ndarray,
    bias: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    train_labels: np.ndarray,
    balance: Balance,
    removed: float,
) -> Head:
    """Return the scored head of a classifier already trained on these data, with `removed` of the class frequencies.

    Its bias is corrected from `removed` to the frequencies that `balance` removes; `scored_head` scores it.
    """
    numbers = {"num_classes": len(bias)}
    if missing := balance.removed - removed:
        bias = bias - logit_offset(train_labels, strength=missing, **numbers)
    weights = held_out_weights(val_labels, train_labels=train_labels, removed=balance.removed, **numbers)
    return scored_head(weight, bias, val_features, val_labels, val_weights=weights)


def _losses(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the cross-entropy of each image, [images], for logits [images, classes], times its weight if any."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    losses = -log_probabilities[np.arange(len(labels)), labels]
    return losses if weights is None else losses * weights
