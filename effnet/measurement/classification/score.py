"""The score of a classifier on labelled images: accuracy, calibration, classes and mistakes; no torch."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.data.sources.source import source_name
from effnet.measurement.answers import predict_split
from effnet.measurement.classification import calibration
from effnet.measurement.classification.chance import MostFrequent, chance_sentence, most_frequent
from effnet.measurement.classification.costs import CostScore, class_costs
from effnet.measurement.classification.levels import LevelScore, level_scores
from effnet.measurement.classification.recall import by_class
from effnet.measurement.classification.text import lines, rare_class_warning, table, warnings_of
from effnet.measurement.classification.unknown import Unknown, measure_unknown
from effnet.measurement.intervals import bootstrap, wilson
from effnet.runtimes.predictor import Predictor
from effnet.system.records import OPTIONAL, to_data
from effnet.tasks.costs import Costs, decide
from effnet.tasks.known import KnownScore

__all__ = ["SCORE", "ClassificationScore", "evaluate_split", "lines", "score", "table", "warnings_about"]

_WORST_MISTAKES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Precision, recall and F1 of one class, which has `support` images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One misclassified image and the model's confidence; `index` is its place in the split."""

    index: int
    source: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The effect of a threshold: the share of images answered, and the error among them, None if none is.

    `score` is what has the threshold, in words; empty for the largest probability.
    """

    threshold: float
    coverage: float
    error: float | None
    score: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """How well calibrated the probabilities are.

    `ece` is the expected calibration error over 15 bins of equal width, `nll` the negative log-likelihood in nats,
    `reliability` the bins that are not empty.
    """

    ece: float
    nll: float
    reliability: tuple[calibration.Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean:
    """The result without the `leaked` images, copies of which training has seen; None if there are no others."""

    leaked: int
    images: int
    accuracy: float | None
    confidence: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationScore:
    """The result on one split.

    `confidence` is the 95 % Wilson interval of the accuracy, valid for few images and if all are right; `bootstrap`
    the 95 % percentile interval of 2,000 resamplings of the images. `balanced_accuracy` is the mean recall of the
    classes that have images, `balanced_bootstrap` its interval from the same resamplings; `lowest` is the class of
    the lowest recall, None if that is within 5 percentage points of the accuracy. `most_frequent` is the best constant
    guess; `chance` is a sentence if the model is not better than that, else empty; `clean` is the result without the
    images that leak, None if none does. `top5` is None for fewer than six classes. `confusion` counts images [true
    class][predicted class]; `mistakes` come most confident first. `uncalibrated` is the calibration
    without the temperature. `risk_coverage` holds (threshold, coverage, risk), `aurc` is the area under it; `answered`
    is None without a threshold, `unknown` if no such images were given. `cost` is None if all wrong answers cost the
    same, `levels` are those above the classes if these have parents, as "animal/dog" has.
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    lowest: ClassScore | None
    confidence: tuple[float, float]
    most_frequent: MostFrequent
    chance: str
    clean: Clean | None
    bootstrap: tuple[float, float]
    balanced_bootstrap: tuple[float, float]
    top5: float | None
    sureness: Sureness
    uncalibrated: Sureness
    risk_coverage: tuple[tuple[float, float, float], ...]
    aurc: float
    answered: Answered | None
    unknown: Unknown | None
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassScore, ...]
    mistakes: tuple[Mistake, ...]
    cost: CostScore | None = field(default=None, metadata=OPTIONAL)
    levels: tuple[LevelScore, ...] = field(default=(), metadata=OPTIONAL)

    @property
    def figure(self) -> float:
        """The accuracy."""
        return self.accuracy

    @property
    def headline(self) -> Mapping[str, float]:
        """The figures on top of a report."""
        return {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy}

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        found: dict[str, Any] = to_data(self)
        return found


SCORE = ClassificationScore


def evaluate_split(
    predictor: Predictor,
    split: Split,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> ClassificationScore:
    """Score a classifier on a split; see `effnet.measurement.evaluate.evaluate`."""
    config = predictor.config
    rows, indices = predict_split(predictor, split, scored=True, progress=progress)
    unknown = None
    if unknown_from is not None:
        unknown = measure_unknown(predictor, unknown_from, known=rows)
    known = config.known if predictor.scored else None
    return score(
        rows[:, : len(config.class_names)],
        split,
        config.class_names,
        indices=indices,
        temperature=config.temperature,
        threshold=config.threshold if known is None else None,
        known=None if known is None else (known, rows[:, -1]),
        unknown=unknown,
        leaked=leaked,
        balanced=bool(config.balanced),
        costs=config.costs,
    )


def score(
    probabilities: np.ndarray,
    split: Split,
    class_names: tuple[str, ...],
    *,
    indices: np.ndarray | None = None,
    temperature: float = 1.0,
    threshold: float | None = None,
    known: tuple[KnownScore, np.ndarray] | None = None,
    unknown: Unknown | None = None,
    leaked: Collection[str] = (),
    balanced: bool = False,
    costs: Costs | None = None,
) -> ClassificationScore:
    """Return the score of `probabilities` [images, classes] against the labels of the split at `indices`.

    By default the rows are those of the whole split, in order. The probabilities include `temperature`;
    `balanced` says that the model was trained to balance its classes. `known` is the score that says "unknown" instead
    of a `threshold`, and its values [images]. If wrong answers have `costs`, these decide what
    each image is answered with.
    """
    indices = np.arange(len(split)) if indices is None else indices
    labels = split.labels[indices]
    predicted = decide(probabilities, costs)
    is_right = predicted == labels
    right = int(is_right.sum())
    confidence, usual = wilson(right, len(labels)), most_frequent(labels, class_names)
    confusion, per_class = class_scores(labels, predicted, class_names)
    recalls = by_class(is_right, labels, num_classes=len(class_names))
    mean_recall = recalls.balanced_accuracy, recalls.bootstrap()
    to_beat = mean_recall if balanced else None
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    curve = calibration.risk_coverage(probabilities, labels, costs=costs)
    sureness = _sureness(probabilities, labels)
    raw = calibration.apply_temperature(probabilities, 1 / temperature)
    return ClassificationScore(
        images=len(labels),
        accuracy=right / len(labels),
        balanced_accuracy=mean_recall[0],
        lowest=None if recalls.lowest is None else per_class[recalls.lowest],
        confidence=confidence,
        most_frequent=usual,
        chance=chance_sentence(right / len(labels), confidence, usual, labels=labels, balanced=to_beat),
        clean=_clean(is_right, [source_name(split.sources[int(i)], "") for i in indices], leaked) if leaked else None,
        bootstrap=bootstrap(right, len(labels)),
        balanced_bootstrap=mean_recall[1],
        top5=float((best == labels[:, None]).any(1).mean()) if len(class_names) > 5 else None,
        sureness=sureness,
        uncalibrated=sureness if temperature == 1 else _sureness(raw, labels),
        risk_coverage=curve.points(),
        aurc=curve.aurc,
        answered=_answered(probabilities, labels, threshold, known, costs),
        unknown=unknown,
        confusion=confusion,
        per_class=per_class,
        mistakes=_mistakes(probabilities, predicted, split, class_names, indices),
        cost=class_costs(probabilities, labels, costs),
        levels=level_scores(probabilities, labels, class_names),
    )


def _clean(is_right: np.ndarray, names: Sequence[str], leaked: Collection[str]) -> Clean:
    known = frozenset(leaked)
    kept = is_right[np.array([name not in known for name in names], dtype=bool)]
    if not len(kept):
        return Clean(leaked=len(names), images=0, accuracy=None, confidence=None)
    right = int(kept.sum())
    return Clean(
        leaked=len(names) - len(kept),
        images=len(kept),
        accuracy=right / len(kept),
        confidence=wilson(right, len(kept)),
    )


def warnings_about(score: ClassificationScore, dataset: Dataset, *, balanced: bool) -> list[str]:
    """Return the warnings that users of a model must see first; `balanced` says that training balanced the classes."""
    rare = rare_class_warning(score, dataset.train.labels, dataset.class_names, balanced=balanced)
    return warnings_of(score) + rare


def class_scores(
    labels: np.ndarray, predicted: np.ndarray, class_names: tuple[str, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[ClassScore, ...]]:
    """Return the confusion matrix [true][predicted] and each class's score; a share of no images is 0."""
    number = len(class_names)
    counts = np.bincount(labels * number + predicted, minlength=number * number).reshape(number, number)
    right, support, named = counts.diagonal(), counts.sum(1), counts.sum(0)
    precision, recall = right / np.maximum(named, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(named + support, 1)
    per_class = tuple(
        ClassScore(name=name, precision=float(p), recall=float(r), f1=float(f), support=int(n))
        for name, p, r, f, n in zip(class_names, precision, recall, f1, support, strict=True)
    )
    return tuple(tuple(map(int, row)) for row in counts), per_class


def _sureness(probabilities: np.ndarray, labels: np.ndarray) -> Sureness:
    return Sureness(
        ece=calibration.expected_calibration_error(probabilities, labels),
        nll=calibration.negative_log_likelihood(probabilities, labels),
        reliability=calibration.reliability(probabilities, labels),
    )


def _answered(
    probabilities: np.ndarray,
    labels: np.ndarray,
    threshold: float | None,
    known: tuple[KnownScore, np.ndarray] | None,
    costs: Costs | None,
) -> Answered | None:
    if known is None:
        return None if threshold is None else answered_share(probabilities, labels, threshold, costs)
    if (least := known[0].threshold) is None:
        return None
    found = answered_share(probabilities, labels, least, costs, confidence=known[1])
    return replace(found, score=known[0].title)


def answered_share(
    probabilities: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    costs: Costs | None = None,
    *,
    confidence: np.ndarray | None = None,
) -> Answered:
    """Return the effect of a threshold on the images, by default of their largest probability."""
    known = (probabilities.max(1) if confidence is None else confidence) >= threshold
    wrong = decide(probabilities, costs) != labels
    error = float(wrong[known].mean()) if known.any() else None
    return Answered(threshold=threshold, coverage=float(known.mean()), error=error)


def _mistakes(
    probabilities: np.ndarray,
    predicted: np.ndarray,
    split: Split,
    class_names: tuple[str, ...],
    indices: np.ndarray,
) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(predicted != split.labels[indices])
    sureness = probabilities[wrong, predicted[wrong]]
    return tuple(
        Mistake(
            index=int(indices[i]),
            source=source_name(split.sources[int(indices[i])], f"image {indices[i]}"),
            label=class_names[split.labels[indices[i]]],
            predicted=class_names[predicted[i]],
            probability=float(probabilities[i, predicted[i]]),
        )
        for i in wrong[np.argsort(-sureness, kind="stable")][:_WORST_MISTAKES]
    )
