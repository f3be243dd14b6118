"""Heads of several outputs on the features of a frozen backbone: each output is fitted on the images that know it."""

from collections.abc import Sequence

import numpy as np

from effnet.data.several.outputs import OutputSpec, Placed, placed
from effnet.errors import DataError
from effnet.training.recipe.schema import Balance
from effnet.training.several.objective import class_offset
from effnet.training.several.validated import validated
from effnet.training.transfer.head import NOT_BALANCED, Head, train_head

# Strengths of the ridge penalty (half the squared weights, against half the mean squared error), the strongest first.
_RIDGE = (1.0, 0.3, 0.1, 0.03, 0.01)
_LEAST_SPREAD = 1e-3


def train_heads(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    specs: Sequence[OutputSpec],
    val_features: np.ndarray,
    val_targets: np.ndarray,
    balance: Balance = NOT_BALANCED,
) -> Head:
    """Return one linear layer for all outputs on `features` [images, channels], for targets of them all.

    An output of classes is a multinomial logistic regression (`train_head`), each tag a binary one, a number a ridge
    regression on its standard score; each is fitted, and its penalty chosen, on the images that know it. Raises
    DataError for a class or tag without an image.
    """
    weights, biases, penalties = [], [], []
    for place in placed(specs):
        train, val = (_known(rows, place) for rows in (targets, val_targets))
        if not train.any():
            raise DataError(f"a head needs readable images whose {place.spec.name} is known; there is none")
        # Without a held-out image that knows it, its penalty is chosen on the training images.
        held = val if val.any() else None
        found = _head(
            place,
            features[train],
            targets[train][:, place.targets],
            val_features[held] if held is not None else features[train],
            val_targets[held][:, place.targets] if held is not None else targets[train][:, place.targets],
            balance,
        )
        weights.append(found[0])
        biases.append(found[1])
        penalties.append(found[2])
    weight, bias = np.concatenate(weights), np.concatenate(biases)
    return scored_heads(weight, bias, val_features, val_targets, specs=specs, penalty=float(np.mean(penalties)))


def scored_heads(
    weight: np.ndarray,
    bias: np.ndarray,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    *,
    specs: Sequence[OutputSpec],
    penalty: float = 0.0,
) -> Head:
    """Return a linear layer, [columns, channels] and [columns], with its scores on the validation features."""
    found = validated((val_features @ weight.T + bias).astype(np.float32), val_targets, specs)
    return Head(
        weight=weight.astype(np.float32, order="C"),
        bias=bias.astype(np.float32),
        penalty=penalty,
        val_loss=found.loss,
        val_figure=found.mean_score,
        val_balanced_figure=found.mean_score,
    )


def known_heads(
    weight: np.ndarray,
    bias: np.ndarray,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    *,
    specs: Sequence[OutputSpec],
    train_targets: np.ndarray,
    balance: Balance,
    removed: float,
) -> Head:
    """Return the scored linear layer of a network already trained on these data; see `head.known_head`."""
    if missing := balance.removed - removed:
        bias = bias - class_offset(specs, train_targets, strength=missing)
    return scored_heads(weight, bias, val_features, val_targets, specs=specs)


def _known(targets: np.ndarray, place: Placed) -> np.ndarray:
    known: np.ndarray = ~np.isnan(targets[:, place.targets]).any(1)
    return known


def _head(
    place: Placed,
    features: np.ndarray,
    targets: np.ndarray,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    balance: Balance,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return weight, bias and penalty of one output."""
    spec = place.spec
    if spec.kind == "number":
        scaled, val_scaled = ((rows[:, 0] - spec.mean) / spec.scale for rows in (targets, val_targets))
        return _ridge(features, scaled, val_features, val_scaled)
    if spec.kind == "one":
        found = _classes(features, targets[:, 0], val_features, val_targets[:, 0], spec.width, balance, spec.name)
        return found.weight, found.bias, found.penalty
    heads = [
        _classes(features, targets[:, tag], val_features, val_targets[:, tag], 2, NOT_BALANCED, f"{spec.name} {name}")
        for tag, name in enumerate(spec.classes)
    ]
    # The probability of the second of two classes is the sigmoid of the difference of their values.
    weight = np.stack([head.weight[1] - head.weight[0] for head in heads])
    bias = np.array([head.bias[1] - head.bias[0] for head in heads])
    return weight, bias, float(np.mean([head.penalty for head in heads]))


def _classes(
    features: np.ndarray,
    labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    number: int,
    balance: Balance,
    what: str,
) -> Head:
    try:
        return train_head(
            features,
            labels.astype(np.int64),
            num_classes=number,
            val_features=val_features,
            val_labels=val_labels.astype(np.int64),
            balance=balance,
        )
    except DataError as error:
        raise DataError(f"{what}: {error}") from error


def _ridge(
    features: np.ndarray, targets: np.ndarray, val_features: np.ndarray, val_targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the ridge regression of standard scores [images] whose penalty has the least validation error.

    As in `train_head`, the strongest penalty counts whose error is within one standard error of the least.
    """
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    spread = np.maximum(spread, _LEAST_SPREAD * spread.max() or 1.0)
    x, middle = (features - mean) / spread, targets.mean()
    gram, cross = x.T @ x / len(x), x.T @ (targets - middle) / len(x)
    found = []
    for penalty in _RIDGE:
        solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross) / spread
        bias = middle - solved @ mean
        found.append((solved, bias, penalty, (val_features @ solved + bias - val_targets) ** 2))
    best = min((errors for *_, errors in found), key=np.mean)
    most = best.mean() + (best.std(ddof=1) / np.sqrt(len(best)) if len(best) > 1 else 0.0)
    weight, bias, penalty, _ = next(row for row in found if row[3].mean() <= most)
    return weight[None], np.array([bias]), penalty
