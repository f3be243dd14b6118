"""Figures of tags, each present or not on its own: average precision, F1, and thresholds; no torch.

All arrays are [images, tags]: probabilities or decisions, and targets of 1 or 0, NaN if unknown, which never count.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# A bootstrap draws at most so many numbers, so that thousands of images with hundreds of tags take seconds.
_MOST_DRAWN, _RESAMPLES, _LEAST_RESAMPLES = 100_000_000, 1000, 100
_TOGETHER = 4_000_000


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the average precision of one tag from scores and targets [images]; NaN without a positive one.

    It is the sum of precision x the step in recall, over the distinct scores, without interpolation.
    """
    found = _Ranked(scores, targets)
    return float(found.average_precision(np.ones((1, len(found.order))))[0])


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the average precision of each tag, float64 [tags], NaN if no known image has the tag."""
    return np.array([average_precision(*_known(scores[:, i], targets[:, i])) for i in range(targets.shape[1])])


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of the tags' average precisions; tags that no known image has are left out; NaN if all are."""
    return mean_known(average_precisions(scores, targets))


def mean_known(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, NaN if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """The known images of each tag by decision and truth, int64 [tags] each."""

    true: np.ndarray
    false: np.ndarray
    missed: np.ndarray
    absent: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """The number of images with a known value."""
        return self.true + self.false + self.missed + self.absent

    @property
    def support(self) -> np.ndarray:
        """The number of images that have the tag."""
        return self.true + self.missed

    @property
    def f1(self) -> np.ndarray:
        """The F1 score of each tag, NaN if it is neither present nor answered anywhere."""
        return _f1(self.true, self.false, self.missed)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the tags that have one."""
        return mean_known(self.f1)

    @property
    def micro_f1(self) -> float:
        """The F1 of all tags together, NaN if none is present or answered."""
        return float(_f1(self.true.sum(), self.false.sum(), self.missed.sum()))


def count(present: np.ndarray, targets: np.ndarray) -> Counts:
    """Return the counts of decisions, bool, against targets."""
    on, off = targets > 0, targets == 0  # NaN is neither
    return Counts(
        true=(present & on).sum(0),
        false=(present & off).sum(0),
        missed=(~present & on).sum(0),
        absent=(~present & off).sum(0),
    )


def exact(present: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return whether all tags of an image are right, bool, for the images all of whose tags are known."""
    whole = ~np.isnan(targets).any(1)
    right: np.ndarray = (present[whole] == (targets[whole] > 0)).all(1)
    return right


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean cross-entropy of the known cells, in nats; probabilities of 0 become 1e-38."""
    known = ~np.isnan(targets)
    right = np.where(targets > 0, probabilities, 1 - np.asarray(probabilities, np.float64))[known]
    return float(-np.log(np.maximum(right, 1e-38)).mean())


def bootstrap_map(scores: np.ndarray, targets: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the mean average precision in resamplings of the images, float64 [resamples].

    Up to 1,000 resamplings, fewer for many images and tags.
    """
    ranked = _ranked(scores, targets)
    found = []
    for weights in drawn(len(targets), resamples=_resamples(len(targets), len(ranked)), seed=seed):
        found.append(_mean_rows([tag.average_precision(weights) for tag in ranked]))
    return np.concatenate(found)


def random_map(scores: np.ndarray, targets: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the mean average precision of random rankings with the ties of these, float64 [rankings].

    It is the distribution if scores say nothing of tags; its mean is near the mean share of images that have a tag.
    """
    ranked, rng, number = _ranked(scores, targets), np.random.default_rng(seed), len(targets)
    rankings = _resamples(number, len(ranked))
    step = max(1, _TOGETHER // number)
    found = []
    for first in range(0, rankings, step):
        # One order of the images for all tags: tags of an image may depend on each other.
        order = rng.permuted(np.tile(np.arange(number), (min(step, rankings - first), 1)), axis=1)
        found.append(_mean_rows([tag.precision_of(tag.shuffled(order)) for tag in ranked]))
    return np.concatenate(found)


def _ranked(scores: np.ndarray, targets: np.ndarray) -> "list[_Ranked]":
    """Return the tags that some image has."""
    tags = range(targets.shape[1])
    return [_Ranked(scores[:, i], targets[:, i]) for i in tags if (targets[:, i] > 0).any()]


def _resamples(number: int, tags: int) -> int:
    return int(np.clip(_MOST_DRAWN // (number * max(1, tags)), _LEAST_RESAMPLES, _RESAMPLES))


def _mean_rows(tags: list[np.ndarray]) -> np.ndarray:
    """Return the mean over the tags [resamples] of those that are not NaN."""
    each = np.stack(tags)
    known = ~np.isnan(each)
    mean: np.ndarray = np.where(known, each, 0).sum(0) / np.maximum(known.sum(0), 1)
    return mean


def drawn(number: int, *, resamples: int | None = None, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each of `number` images is drawn with replacement, float64 [some resamples, images].

    By default 1,000 times, less often for very many images.
    """
    rng, resamples = np.random.default_rng(seed), resamples or _resamples(number, 1)
    step = max(1, _TOGETHER // number)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        chosen = rng.integers(0, number, (rows, number)) + number * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)


class _Ranked:
    """The known images of one tag in the order of their scores, for weights of the images."""

    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        known = np.flatnonzero(~np.isnan(targets))
        self.order = known[np.argsort(-scores[known], kind="stable")]
        self.targets = targets
        self.positive = targets[self.order] > 0
        ranked = scores[self.order]
        self.last = np.append(ranked[1:] < ranked[:-1], True)[: len(ranked)]  # equal scores are one step

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Return the average precision if image i counts weights[:, i] times, float64 [resamples]; NaN if undefined."""
        ordered = weights[:, self.order]
        return self.precision_of(ordered * self.positive, ordered)

    def shuffled(self, order: np.ndarray) -> np.ndarray:
        """Return 1 for the images that have the tag, 0 for others, in another order of all images, known ones alone.

        Float64 [orders, known images]; `order` is [orders, images].
        """
        cells = self.targets[order]
        return cells[~np.isnan(cells)].reshape(len(order), len(self.order))

    def precision_of(self, true: np.ndarray, answered: np.ndarray | None = None) -> np.ndarray:
        """Return the average precision of weights by rank: of the images that have the tag, and of all (1 each)."""
        total = np.arange(1.0, 1 + true.shape[1]) if answered is None else answered.cumsum(1)
        found = true.cumsum(1)[:, self.last]
        precision = found / np.maximum(total[..., self.last], 1e-300)
        whole = true.sum(1)
        steps = np.diff(found, axis=1, prepend=0)
        return np.where(whole > 0, (steps * precision).sum(1) / np.where(whole > 0, whole, 1), np.nan)


def _known(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(targets)
    return scores[known], targets[known]


def _f1(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    total = 2 * true + false + missed
    return np.where(total > 0, 2 * true / np.maximum(total, 1), np.nan)
