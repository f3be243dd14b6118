"""Pseudo-labels: a teacher's answers to unlabelled images, from the confidence on at which they are nearly all right.

Source of the method: Lee 2013, "Pseudo-Label"; Xie et al. 2020, "Self-training with Noisy Student improves ImageNet
classification" (arXiv 1911.04252).
"""

from dataclasses import dataclass

import numpy as np

from effnet.measurement.classification.calibration import risk_coverage

# The required precision and, if no confidence reaches it, the second: of a few dozen answers one or two among the most
# confident may be wrong, and a student with noise withstands more than that.
LEAST_PRECISION, SECOND_PRECISION = 0.95, 0.85
# The precision of fewer answers than this on the validation images says nothing.
LEAST_ANSWERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The least confidence of a pseudo-label, its precision on validation images, and the `answers` with as much."""

    value: float
    precision: float
    answers: int


def choose_threshold(
    probabilities: np.ndarray, labels: np.ndarray, *, least: float = LEAST_PRECISION, answers: int = LEAST_ANSWERS
) -> Threshold | None:
    """Return the lowest confidence from which on at least the share `least` of the answers is right; None if none is.

    `probabilities` [images, classes] and `labels` [images] are those of validation images, of which at least `answers`
    must have that confidence.
    """
    if not len(labels):
        return None
    curve = risk_coverage(probabilities, labels)
    counts = np.rint(curve.coverage * len(labels)).astype(int)
    passing = np.flatnonzero((curve.risk <= 1 - least + 1e-9) & (counts >= answers))
    if not len(passing):
        return None
    last = passing[-1]
    return Threshold(
        value=float(curve.thresholds[last]), precision=float(1 - curve.risk[last]), answers=int(counts[last])
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PseudoLabels:
    """The pseudo-labels of the images at `indices`: `classes` int64 and `confidences` float32, [images] each."""

    indices: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray

    def some(self, rows: np.ndarray) -> "PseudoLabels":
        """Return those at these rows."""
        return PseudoLabels(indices=self.indices[rows], classes=self.classes[rows], confidences=self.confidences[rows])

    def counts(self, num_classes: int) -> np.ndarray:
        """Return the number of images of each class, int64 [classes]."""
        return np.bincount(self.classes, minlength=num_classes)


def pseudo_labels(probabilities: np.ndarray, indices: np.ndarray, threshold: float) -> PseudoLabels:
    """Return the pseudo-labels of the rows of `probabilities` [images, classes] whose confidence is high enough."""
    confidences = probabilities.max(1)
    rows = np.flatnonzero(confidences >= threshold)
    return PseudoLabels(
        indices=indices[rows].astype(np.int64),
        classes=probabilities.argmax(1)[rows].astype(np.int64),
        confidences=confidences[rows].astype(np.float32),
    )
