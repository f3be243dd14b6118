"""Recall per class, which accuracy hides if some classes have few images."""

from dataclasses import dataclass

import numpy as np

from effnet.measurement.intervals import RESAMPLES

# A class is reported if its recall is this far below the accuracy.
_NOTICEABLE = 0.05
# The most numbers drawn at a time.
_DRAWN = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByClass:
    """The images classified correctly and all images of each class: int64 [classes] each."""

    right: np.ndarray
    images: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of all images that were classified correctly."""
        return float(self.right.sum() / self.images.sum())

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images; NaN if none has.

        Source: Brodersen et al., ICPR 2010, "The balanced accuracy and its posterior distribution".
        """
        present = self.images > 0
        return float((self.right[present] / self.images[present]).mean()) if present.any() else float("nan")

    @property
    def lowest(self) -> int | None:
        """The class of the lowest recall, of equal ones the one with most images; None if it is near the accuracy."""
        present = np.flatnonzero(self.images)
        recall = self.right[present] / self.images[present]
        place = np.lexsort((-self.images[present], recall))[0]
        return int(present[place]) if recall[place] < self.accuracy - _NOTICEABLE else None

    def bootstrap(self, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % percentile bootstrap interval of the balanced accuracy.

        Images are drawn with replacement, whatever their class; a class that is not drawn does not count. The number
        of right images is drawn first, with the same random numbers as in `intervals.bootstrap`, so that both
        intervals belong to the same resamplings. Source: Efron, Ann. Stat. 7 (1979), 1-26.
        """
        rng, count = np.random.default_rng(seed), int(self.images.sum())
        right = rng.binomial(count, self.right.sum() / count, resamples)
        wrong, present = count - right, self.images > 0
        step = max(1, _DRAWN // len(self.images))
        found = []
        for first in range(0, resamples, step):
            part = slice(first, first + step)
            good = _drawn(rng, right[part], self.right[present])
            drawn = good + _drawn(rng, wrong[part], (self.images - self.right)[present])
            recalls = np.divide(good, drawn, out=np.full(good.shape, np.nan), where=drawn > 0)
            found.append(np.nanmean(recalls, axis=1))
        low, high = np.percentile(np.concatenate(found), (2.5, 97.5))
        return float(low), float(high)


def by_class(is_right: np.ndarray, labels: np.ndarray, *, num_classes: int | None = None) -> ByClass:
    """Return the counts per class of `is_right`, bool [images], for int64 `labels` [images]."""
    number = num_classes or int(labels.max(initial=-1)) + 1
    return ByClass(right=np.bincount(labels[is_right], minlength=number), images=np.bincount(labels, minlength=number))


def _drawn(rng: np.random.Generator, numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the multinomial counts of each kind among `numbers` [resamples] drawn, [resamples, kinds]."""
    total = counts.sum()
    return rng.multinomial(numbers, counts / total) if total else np.zeros((len(numbers), len(counts)), np.int64)
