"""How well each score finds images of unknown classes: leave one class out of the training images, and look for it."""

from collections.abc import Callable, Sequence

import numpy as np

from effnet.measurement.calibration import fit_temperature
from effnet.measurement.known.choice import Estimate
from effnet.measurement.known.scores import fit_score, score_values
from effnet.measurement.unknown import area_under_roc
from effnet.tasks.known import TITLES, Method
from effnet.training.transfer.head import PENALTIES, train_head
from effnet.training.transfer.out_of_fold import NEVER, folds_of

# Three folds leave two thirds of the images for the head. Each class is left out at least once, with one fold held out;
# of few classes each is left out with other folds too. Of many, these are enough.
_FOLDS, _ROUNDS, _MOST_CLASSES = 3, 12, 24
LEAST_CLASSES = 3
"""With two classes, leaving one out leaves no classifier."""
# More training images than these hardly change an estimate.
_A_CLASS = 100


def leave_one_out(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    methods: Sequence[Method] = tuple(TITLES),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Estimate, ...]:
    """Return the estimated AUROC of each score against images of unknown classes, from training images alone.

    In each round a class is left out, and a third of the images of the others is held out. The head and the scores are
    fitted on the rest; each score must tell the held-out images from those of the class. `features` are [images,
    channels], `labels` [images], `groups` [images] are equal for images that belong together: they are in one fold.
    Empty with fewer than three classes of two images or groups each.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    fold = folds_of(labels, groups, folds=_FOLDS, seed=seed)
    chosen = _some(labels, fold, seed=seed)
    features, labels, fold = features[chosen], labels[chosen], fold[chosen]
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    if len(classes) < LEAST_CLASSES:
        return ()
    left = rng.permutation(classes)[:_MOST_CLASSES]
    turns = min(_FOLDS, -(-_ROUNDS // len(left)))
    rounds = [(int(label), (place + turn) % _FOLDS) for place, label in enumerate(left) for turn in range(turns)]
    found: dict[Method, dict[int, list[float]]] = {method: {} for method in methods}
    for done, (label, number) in enumerate(rounds):
        for method, area in _round(features, labels, fold, label, number, methods, seed=seed).items():
            found[method].setdefault(label, []).append(area)
        if progress:
            progress(done + 1, len(rounds))
    return tuple(
        Estimate(method=method, auroc=float(np.mean([np.mean(some) for some in areas.values()])))
        for method, areas in found.items()
        if areas
    )


def _some(labels: np.ndarray, fold: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the places of at most _A_CLASS images of each class that are in a fold."""
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero((labels == label) & (fold != NEVER)) for label in np.unique(labels)]
    return np.sort(np.concatenate([rng.permutation(some)[:_A_CLASS] for some in places]))


def _round(
    features: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    label: int,
    number: int,
    methods: Sequence[Method],
    *,
    seed: int,
) -> dict[Method, float]:
    """Return the AUROC of each score if a class is left out and a fold is held out; none if no image is left."""
    strange, held = labels == label, (labels != label) & (fold == number)
    rest = ~strange & ~held
    present, places = np.unique(labels[rest], return_inverse=True)
    held &= np.isin(labels, present)
    if len(present) < LEAST_CLASSES - 1 or not held.any():
        return {}
    truth = np.searchsorted(present, labels[held])
    head = train_head(
        features[rest], places, num_classes=len(present), val_features=features[held], val_labels=truth,
        penalties=PENALTIES[:1],
    )  # fmt: skip
    found: dict[Method, float] = {}
    for method in methods:
        if method == "probability":
            temperature = fit_temperature(features[held] @ head.weight.T + head.bias, truth)
            values = [_largest(features[part], head.weight, head.bias, temperature) for part in (held, strange)]
        else:
            score = fit_score(method, features[rest], places, seed=seed)
            values = [score_values(score, features[part], head.weight, head.bias) for part in (held, strange)]
        found[method] = area_under_roc(*values)
    return found


def _largest(features: np.ndarray, weight: np.ndarray, bias: np.ndarray, temperature: float) -> np.ndarray:
    """Return the largest probability of each image [images]."""
    logits = (features.astype(np.float64) @ weight.T + bias) / temperature
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = shifted.max(1) / shifted.sum(1)
    return found
