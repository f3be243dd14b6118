"""Which labels are probably wrong: a model of label noise on the scores of a classifier that never saw the image."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

# Beginnings of the search for the temperature's logarithm and the log odds of the rate.
_STARTS = ((0.0, -4.0), (0.0, -2.0), (0.7, -3.0))
_LEAST = 1e-30
# The rate is estimated as if one wrong label among so many had been seen besides: of few labels, the likeliest rate is
# often 0, which would judge none.
_SEEN_BEFORE = 50


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelNoise:
    """The probability that each label is wrong [images], and the most likely label other than the given one [images].

    `rate` is the share of wrong labels in the whole set, `temperature` the one that the scores were divided by.
    """

    rate: float
    temperature: float
    probabilities: np.ndarray
    likely: np.ndarray

    def expected_precision(self, first: int) -> float:
        """Return the share of wrong labels to expect among the `first` images of the largest probabilities."""
        return float(np.sort(self.probabilities)[::-1][:first].mean()) if first else 0.0


def label_noise(logits: np.ndarray, labels: np.ndarray) -> LabelNoise:
    """Return what scores of images that were held out say about their labels.

    `logits` [images, classes] are of a classifier trained without the image; `labels` [images] are the given ones. A
    label is taken to be wrong with one probability, the rate, and then to be any other class; the true class of an
    image is taken to have the probabilities softmax(logits / temperature). Both numbers are those of the largest
    likelihood of the given labels, and of one wrong label in 50 before them; the probability of each wrong label
    follows by Bayes' rule. So a classifier that is often wrong itself, whose softmax says so, raises few false alarms,
    while ranking by confidence alone raises many.
    """
    rows, classes = np.arange(len(labels)), logits.shape[1]

    def own(temperature: float) -> np.ndarray:
        """Return the probability that each given label is the true class."""
        return np.exp(log_softmax(logits / temperature, axis=1)[rows, labels])

    def loss(point: np.ndarray) -> float:
        rate = 1 / (1 + np.exp(-point[1]))
        right, wrong = _parts(own(np.exp(point[0])), rate, classes)
        before = np.log(rate + _LEAST) + (_SEEN_BEFORE - 1) * np.log1p(-rate + _LEAST)
        return float(-np.log(right + wrong + _LEAST).sum() - before)

    found = min((minimize(loss, start, method="Nelder-Mead") for start in _STARTS), key=lambda each: each.fun)
    temperature, rate = float(np.exp(found.x[0])), float(1 / (1 + np.exp(-found.x[1])))
    right, wrong = _parts(own(temperature), rate, classes)
    others = logits.astype(np.float64)
    others[rows, labels] = -np.inf
    return LabelNoise(
        rate=rate,
        temperature=temperature,
        probabilities=wrong / np.maximum(right + wrong, _LEAST),
        likely=others.argmax(1),
    )


def _parts(own: np.ndarray, rate: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each given label as the true one, and as a wrong one."""
    return (1 - rate) * own, rate * (1 - own) / (classes - 1)
