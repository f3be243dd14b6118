"""The final of a search: its best networks and the best scaled one, trained again with seeds of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.nas.history import Trained
from effnet.nas.spaces.space import Genome

_RESAMPLES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A network of the final: whether it is a scaled one, and its trainings, one a seed.

    `values` are the task's figure, larger is better, `nlls` the mean validation losses. `right` says for each seed and
    validation image whether the answer is right, bool [seeds, images]; empty if the task knows no such thing.
    """

    genome: Genome
    scaled: bool
    values: tuple[float, ...]
    nlls: tuple[float, ...]
    right: tuple[tuple[bool, ...], ...] = ()

    @property
    def mean(self) -> float:
        """The mean figure over the seeds."""
        return float(np.mean(self.values))

    @property
    def rank(self) -> tuple[float, float]:
        """Return a key that is larger for a better network: the mean figure, then the mean loss."""
        return self.mean, -float(np.mean(self.nlls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The winner of a final, and the difference of the best searched network to the best scaled one.

    `gain` is that of their mean figures, `interval` its 95 % confidence interval. `found` says that the search found a
    better network: that the interval lies above 0. Both are None if only one kind was in the final.
    """

    winner: Genome
    gain: float | None
    interval: tuple[float, float] | None

    @property
    def found(self) -> bool:
        """Whether the best searched network is better than the best scaled one beyond noise."""
        return self.interval is not None and self.interval[0] > 0


def ranked(history: Sequence[Trained]) -> list[Genome]:
    """Return the networks of a history, the best first: whole trainings precede stopped ones, ties go by the loss."""
    order = sorted(history, key=lambda each: (-each.share, -each.score, each.nll if each.nll is not None else 0.0))
    return list(dict.fromkeys(each.genome for each in order))


def decide(finalists: Sequence[Finalist], *, seed: int) -> Verdict:
    """Return the winner: the best searched network if it is better than the best scaled one, which wins a tie.

    The interval is a bootstrap over training seeds and validation images at once, if the images' answers are known,
    else over seeds alone.
    """
    searched = max((each for each in finalists if not each.scaled), key=lambda each: each.rank, default=None)
    scaled = max((each for each in finalists if each.scaled), key=lambda each: each.rank, default=None)
    if searched is None or scaled is None:
        only = searched or scaled
        assert only is not None
        return Verdict(winner=only.genome, gain=None, interval=None)
    interval = _interval(searched, scaled, seed=seed)
    winner = searched if searched.rank > scaled.rank and interval[0] > 0 else scaled
    return Verdict(winner=winner.genome, gain=searched.mean - scaled.mean, interval=interval)


def _interval(first: Finalist, second: Finalist, *, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference of two networks' means."""
    rng = np.random.default_rng(seed)
    gains = _resampled(first, second, rng) if first.right and second.right else _of_seeds(first, second, rng)
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


def _resampled(first: Finalist, second: Finalist, rng: np.random.Generator) -> np.ndarray:
    """Return differences [resamples] of the mean correctness, over resampled seeds of both and the same images."""
    ones, others = np.array(first.right, dtype=float), np.array(second.right, dtype=float)
    images = ones.shape[1]
    gains = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        counts = np.bincount(rng.integers(images, size=images), minlength=images) / images
        one = ones[rng.integers(len(ones), size=len(ones))].mean(0)
        other = others[rng.integers(len(others), size=len(others))].mean(0)
        gains[number] = (one - other) @ counts
    return gains


def _of_seeds(first: Finalist, second: Finalist, rng: np.random.Generator) -> np.ndarray:
    """Return differences [resamples] of the mean figures over resampled seeds."""
    ones, others = np.array(first.values), np.array(second.values)
    picks = [rng.integers(len(each), size=(_RESAMPLES, len(each))) for each in (ones, others)]
    found: np.ndarray = ones[picks[0]].mean(1) - others[picks[1]].mean(1)
    return found
