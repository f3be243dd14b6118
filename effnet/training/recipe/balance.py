"""Class imbalance: removes class frequencies from training or from calibration."""

import numpy as np

from effnet.errors import DataError
from effnet.training.recipe.schema import Balance


def log_prior(labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Return the logarithm of each class's share of int64 `labels` [images], float64 [classes].

    Raises DataError if a class has no image: its frequency is unknown.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if absent := np.flatnonzero(counts == 0).tolist():
        raise DataError(
            f"to balance classes, each must have a training image; class {', '.join(map(str, absent[:3]))} of "
            f"{num_classes} has none: add images, or leave balance out"
        )
    return np.log(counts / len(labels))


def logit_offset(labels: np.ndarray, *, num_classes: int, strength: float, smoothing: float = 0.0) -> np.ndarray:
    """Return strength * log(frequency), float64 [classes]; subtracting it from the logits balances the classes.

    Label smoothing, `smoothing`, raises the frequency of rare classes in the targets, and a network learns the
    frequencies of its targets: they are used here. Source: Menon et al. 2021, "Long-tail learning via logit
    adjustment", eq. 9, without smoothing; `strength` is tau there.
    """
    shares = np.exp(log_prior(labels, num_classes=num_classes))
    return strength * np.log((1 - smoothing) * shares + smoothing / num_classes)


def class_weights(labels: np.ndarray, *, num_classes: int, strength: float, smoothing: float = 0.0) -> np.ndarray:
    """Return weights in proportion to frequency^-strength, whose mean over all images is 1: float64 [classes].

    At strength 1 they are images / (classes * images of the class), scikit-learn's "balanced". With label `smoothing`
    frequencies are those in the targets, as in `logit_offset`: else the part that smoothing gives a rare class in the
    targets of all other images would outweigh their own class.
    """
    weights = np.exp(-logit_offset(labels, num_classes=num_classes, strength=strength, smoothing=smoothing))
    return weights / weights[labels].mean()


def held_out_weights(
    labels: np.ndarray, *, train_labels: np.ndarray, num_classes: int, removed: float
) -> np.ndarray | None:
    """Return a weight for each held-out image, float64 [images] of mean 1, or None if all count alike.

    The weights give each class the frequency that a network assumes after `removed` of the training frequencies was
    removed from its logits: frequency^(1 - removed).
    """
    if not removed or not len(labels):
        return None
    wanted = np.exp((1 - removed) * log_prior(train_labels, num_classes=num_classes))
    weights = (wanted / np.maximum(np.bincount(labels, minlength=num_classes), 1))[labels]
    return weights / weights.mean()


def sampled(labels: np.ndarray, balance: Balance, *, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of an epoch that samples classes by frequency^(1 - strength), and the repeat of each.

    Both are int64 [images], as many as there are labels, ordered by class; they depend only on seed and epoch. An
    undersampled class gives other images each epoch; an oversampled class gives all of its images equally often, up to
    a difference of one.
    """
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    shares = counts[present] ** (1.0 - balance.strength)
    numbers = _whole(shares / shares.sum() * len(labels))
    rng = np.random.default_rng([seed, epoch, len(labels)])
    places, times = [], []
    for label, number in zip(present, numbers, strict=True):
        own = np.flatnonzero(labels == label)
        rounds = np.arange(-(-number // len(own)))
        places.append(np.concatenate([rng.permutation(own) for _ in rounds] or [own])[:number])
        times.append(np.repeat(rounds, len(own))[:number])
    return np.concatenate(places), np.concatenate(times)


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Return integers of the same sum, rounded down, or up for the largest remainders."""
    found = np.floor(numbers).astype(np.int64)
    order = np.argsort(found - numbers, kind="stable")
    found[order[: round(numbers.sum()) - int(found.sum())]] += 1
    return found
