"""How well each score finds images of unknown classes: leave one class out of the training images, and look for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from effnet.measurement.classification.calibration import fit_temperature
from effnet.measurement.classification.unknown import area_under_roc
from effnet.measurement.known.choice import Estimate
from effnet.measurement.known.scores import fit_score, log_odds, score_values
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The estimate of each score, and the mean and the standard deviation of each of held-out known images.

    Both are empty if there are fewer than three classes of two images or groups each.
    """

    estimates: tuple[Estimate, ...] = ()
    scales: Mapping[Method, tuple[float, float]] = field(default_factory=dict)


def leave_one_out(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LeftOut:
    """Return the estimated AUROC of each score against images of unknown classes, from training images alone.

    In each round a class is left out, and a fold of the images of the others is held out. The head and the scores are
    fitted on the rest; each score must tell the held-out images from those of the class. `features` are [images,
    channels], `labels` [images], `groups` [images] are equal for images that belong together: they are in one fold.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    fold = folds_of(labels, groups, folds=_FOLDS, seed=seed)
    chosen = _some(labels, fold, seed=seed)
    features, labels, fold = features[chosen], labels[chosen], fold[chosen]
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    if len(classes) < LEAST_CLASSES:
        return LeftOut()
    left = rng.permutation(classes)[:_MOST_CLASSES]
    turns = min(_FOLDS, -(-_ROUNDS // len(left)))
    rounds = [(int(label), (place + turn) % _FOLDS) for place, label in enumerate(left) for turn in range(turns)]
    areas: dict[int, list[dict[Method, float]]] = {}
    scales: list[dict[Method, tuple[float, float]]] = []
    for done, (label, number) in enumerate(rounds):
        if (parts := _round(features, labels, fold, label, number, seed=seed)) is not None:
            areas.setdefault(label, []).append({name: area_under_roc(*each) for name, each in parts.items()})
            scales.append({name: (float(each[0].mean()), float(each[0].std())) for name, each in parts.items()})
        if progress:
            progress(done + 1, len(rounds))
    return _joined(list(areas.values()), scales)


def _joined(areas: list[list[dict[Method, float]]], scales: list[dict[Method, tuple[float, float]]]) -> LeftOut:
    """Return the estimates from the AUROC of each score, in each round of each class, and the mean of the scales."""
    if not scales:
        return LeftOut()
    each = {name: np.array([np.mean([one[name] for one in some]) for some in areas]) for name in areas[0][0]}
    gains = {name: values - each["probability"] for name, values in each.items()}
    several = len(areas) > 1
    estimates = tuple(
        Estimate(
            method=name,
            auroc=float(values.mean()),
            error=float(gains[name].std(ddof=1) / np.sqrt(len(areas))) if several else 0.0,
        )
        for name, values in each.items()
    )
    means = {name: np.mean([one[name] for one in scales], axis=0) for name in each}
    return LeftOut(
        estimates=estimates, scales={name: (float(mean), float(spread)) for name, (mean, spread) in means.items()}
    )


def _some(labels: np.ndarray, fold: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the places of at most _A_CLASS images of each class that are in a fold."""
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero((labels == label) & (fold != NEVER)) for label in np.unique(labels)]
    return np.sort(np.concatenate([rng.permutation(some)[:_A_CLASS] for some in places]))


def _round(
    features: np.ndarray, labels: np.ndarray, fold: np.ndarray, label: int, number: int, *, seed: int
) -> dict[Method, tuple[np.ndarray, np.ndarray]] | None:
    """Return each score of the images held out and of those of the class left out; None if no image is left."""
    strange, held = labels == label, (labels != label) & (fold == number)
    rest = ~strange & ~held
    present, places = np.unique(labels[rest], return_inverse=True)
    held &= np.isin(labels, present)
    if len(present) < LEAST_CLASSES - 1 or not held.any():
        return None
    truth = np.searchsorted(present, labels[held])
    head = train_head(
        features[rest], places, num_classes=len(present), val_features=features[held], val_labels=truth,
        penalties=PENALTIES[:1],
    )  # fmt: skip
    last = head.weight.astype(np.float64), head.bias.astype(np.float64)
    logits = [features[part] @ last[0].T + last[1] for part in (held, strange)]
    temperature = fit_temperature(logits[0], truth)
    found: dict[Method, tuple[np.ndarray, np.ndarray]] = {}
    for method in TITLES:
        if method == "probability":
            first, second = (log_odds(each / temperature) for each in logits)
        else:
            scales = {name: (float(part.mean()), float(part.std())) for name, (part, _) in found.items()}
            score = fit_score(method, features[rest], places, scales=scales, seed=seed)
            first, second = (
                score_values(score, features[part], *last, temperature=temperature) for part in (held, strange)
            )
        found[method] = first, second
    return found
