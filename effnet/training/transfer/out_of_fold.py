"""Scores of each image by a head that was trained without it and without its copies."""

from collections.abc import Callable

import numpy as np

from effnet.training.transfer.head import PENALTIES, train_head

FOLDS = 5
NEVER = -1
"""The fold of an image that is in every training set: the only one of its class, or all of it are copies."""


def folds_of(labels: np.ndarray, groups: np.ndarray, *, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Return the fold of each image, int64 [images]: the classes are spread evenly, and a group is in one fold.

    `groups` [images] are numbers, equal for images that belong together. Images of a class with a single group are in
    no fold, so that every training set has every class.
    """
    rng = np.random.default_rng(seed)
    found = np.full(len(labels), NEVER)
    of_group = {int(group): int(labels[row]) for row, group in reversed(list(enumerate(groups)))}
    first = 0
    for label in np.unique(labels):
        own = rng.permutation([group for group, its in of_group.items() if its == label])
        if len(own) < 2:
            continue
        for number, group in enumerate(own):
            found[groups == group] = (first + number) % folds
        first += len(own)
    return found


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    *,
    num_classes: int,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the logits [images, classes] of the images of each fold by a head trained on all others; NaN in no fold.

    Classes without an image get -inf.
    """
    present = np.unique(labels)
    found = np.full((len(labels), num_classes), np.nan)
    places = np.searchsorted(present, labels)
    numbers = [number for number in np.unique(fold) if number != NEVER]
    for done, number in enumerate(numbers):
        held = fold == number
        head = train_head(
            features[~held], places[~held], num_classes=len(present), val_features=features[held],
            val_labels=places[held], penalties=PENALTIES[:1],
        )  # fmt: skip
        found[held] = -np.inf
        found[np.ix_(held, present)] = features[held] @ head.weight.T + head.bias
        if progress:
            progress(done + 1, len(numbers))
    return found
