"""The score of one of several outputs: classes, tags or a number, each beside what a constant answer reaches; no torch.

Everything here takes the images with known values alone: rows [images, columns of the output] and targets.
"""

from dataclasses import dataclass

import numpy as np

from effnet.data.several.outputs import Kind, OutputSpec
from effnet.measurement.classification import calibration
from effnet.measurement.classification.chance import MostFrequent, chance_sentence, most_frequent
from effnet.measurement.classification.costs import CostScore, class_costs, tag_costs
from effnet.measurement.classification.levels import LevelScore, level_scores
from effnet.measurement.classification.recall import by_class
from effnet.measurement.classification.score import Answered, ClassScore, answered_share, class_scores
from effnet.measurement.classification.unknown import Unknown, unknown_of
from effnet.measurement.intervals import wilson
from effnet.measurement.several import multilabel
from effnet.measurement.several.figures import skill
from effnet.system.text import percent
from effnet.tasks.costs import costs_of, decide
from effnet.tasks.several import tags_present

# The most pairs of a number and its target that a score keeps for a plot.
_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassesScore:
    """The details of an output that is one of some classes; see ClassificationScore for the figures."""

    balanced_accuracy: float
    balanced_bootstrap: tuple[float, float]
    most_frequent: MostFrequent
    ece: float
    nll: float
    temperature: float
    answered: Answered | None
    unknown: Unknown | None
    cost: CostScore | None
    levels: tuple[LevelScore, ...]
    per_class: tuple[ClassScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagScore:
    """One tag: it is present in `support` of `images` images, and answered from the probability `threshold` on.

    `average_precision` is NaN without support, precision, recall and F1 if nothing is to be divided.
    """

    name: str
    images: int
    support: int
    average_precision: float
    precision: float
    recall: float
    f1: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsScore:
    """The details of an output of tags, at their thresholds.

    `exact_match` is the share of images all of whose tags are right. `constant_f1` and `constant_match` are the micro
    F1 and the exact match of answering each tag as most images have it. `nll` is the mean cross-entropy of a tag.
    """

    micro_f1: float
    macro_f1: float
    exact_match: float
    constant_f1: float
    constant_match: float
    nll: float
    temperature: float
    cost: CostScore | None
    tags: tuple[TagScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberScore:
    """The details of a number: `median` is that of the targets, `points` are (target, answer) of some images.

    `r2` is the share of the targets' variance that is explained, NaN if they do not vary. `gain` is the 95 % interval
    of what the mean error is below that of the median, on the same images.
    """

    rmse: float
    r2: float
    median: float
    gain: tuple[float, float]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputScore:
    """The score of one output on its `known` images; all numbers are NaN, and the details None, if there is none.

    `value` is its figure: the accuracy of classes, the mean average precision (mAP) of tags, the mean absolute error
    (MAE) of a number, with a 95 % interval: Wilson's of an accuracy, else from resamplings of the images. `baseline` is
    what always the most frequent class, a random ranking, or the median of the targets reaches. `score` is its part of
    the mean score (effnet.measurement.several.figures). `chance` is a sentence if it is not better than the baseline.
    """

    name: str
    kind: Kind
    known: int
    score: float
    value: float
    interval: tuple[float, float]
    baseline: float
    chance: str
    classes: ClassesScore | None = None
    tags: TagsScore | None = None
    number: NumberScore | None = None


def score_output(
    part: np.ndarray,
    target: np.ndarray,
    spec: OutputSpec,
    *,
    strange: np.ndarray | None = None,
    unreadable: int = 0,
    balanced: bool = False,
) -> OutputScore:
    """Return the score of an output from its columns of the rows and of the targets, NaN for unknown.

    `strange` are its columns of images of none of the classes, if there are any; more were `unreadable`. A `balanced`
    model is compared with chance by its balanced accuracy.
    """
    known = ~np.isnan(target).all(1)
    part, target = np.asarray(part[known], np.float64), target[known]
    if not len(target):
        nan = float("nan")
        chance = f"The output {spec.name} is not scored: no test image has a known value of it."
        return OutputScore(
            name=spec.name, kind=spec.kind, known=0, score=nan, value=nan, interval=(nan, nan), baseline=nan,
            chance=chance,
        )  # fmt: skip
    if spec.kind == "one":
        unknown: Unknown | None = None
        if strange is not None:
            unknown = unknown_of(strange, part.max(1), threshold=spec.threshold, unreadable=unreadable)
        return _classes(part, target[:, 0].astype(np.int64), spec, unknown, balanced=balanced)
    return _tags(part, target, spec) if spec.kind == "many" else _number(part[:, 0], target[:, 0], spec)


def _classes(
    probabilities: np.ndarray, labels: np.ndarray, spec: OutputSpec, unknown: Unknown | None, *, balanced: bool
) -> OutputScore:
    costs = costs_of(spec)
    answers = decide(probabilities, costs)
    is_right = answers == labels
    right, count = int(is_right.sum()), len(labels)
    interval, usual = wilson(right, count), most_frequent(labels, spec.classes)
    recalls = by_class(is_right, labels, num_classes=len(spec.classes))
    _, per_class = class_scores(labels, answers, spec.classes)
    mean_recall = recalls.balanced_accuracy, recalls.bootstrap()
    chance = chance_sentence(right / count, interval, usual, labels=labels, balanced=mean_recall if balanced else None)
    details = ClassesScore(
        balanced_accuracy=mean_recall[0],
        balanced_bootstrap=mean_recall[1],
        most_frequent=usual,
        ece=calibration.expected_calibration_error(probabilities, labels),
        nll=calibration.negative_log_likelihood(probabilities, labels),
        temperature=spec.temperature,
        answered=None if spec.threshold is None else answered_share(probabilities, labels, spec.threshold, costs),
        unknown=unknown,
        cost=class_costs(probabilities, labels, costs),
        levels=level_scores(probabilities, labels, spec.classes),
        per_class=per_class,
    )
    return OutputScore(
        name=spec.name,
        kind="one",
        known=count,
        score=right / count,
        value=right / count,
        interval=interval,
        baseline=usual.share,
        chance=chance.replace("The model", f"The output {spec.name}", 1),
        classes=details,
    )


def _tags(probabilities: np.ndarray, targets: np.ndarray, spec: OutputSpec) -> OutputScore:
    precisions = multilabel.average_precisions(probabilities, targets)
    value = multilabel.mean_known(precisions)
    present = tags_present(probabilities, spec)
    counts = multilabel.count(present, targets)
    some = counts.support > 0
    baseline = float((counts.support / np.maximum(counts.images, 1))[some].mean()) if some.any() else float("nan")
    interval, better = (float("nan"), float("nan")), False
    if some.any():
        interval = _percentiles(multilabel.bootstrap_map(probabilities, targets))
        better = value > _percentiles(multilabel.random_map(probabilities, targets))[1]
    return OutputScore(
        name=spec.name,
        kind="many",
        known=len(targets),
        score=value,
        value=value,
        interval=interval,
        baseline=baseline,
        chance=_tags_chance(spec.name, value, baseline, better=better),
        tags=_tags_details(probabilities, targets, spec, counts=counts, precisions=precisions),
    )


def _tags_details(
    probabilities: np.ndarray,
    targets: np.ndarray,
    spec: OutputSpec,
    *,
    counts: multilabel.Counts,
    precisions: np.ndarray,
) -> TagsScore:
    present = tags_present(probabilities, spec)
    usual = np.broadcast_to(counts.support * 2 > counts.images, present.shape)
    limits = spec.thresholds or (0.5,) * len(spec.classes)
    precision = _share(counts.true, counts.true + counts.false)
    recall = _share(counts.true, counts.support)
    columns = zip(
        spec.classes, counts.images, counts.support, precisions, precision, recall, counts.f1, limits, strict=True
    )
    return TagsScore(
        micro_f1=counts.micro_f1,
        macro_f1=counts.macro_f1,
        exact_match=_mean(multilabel.exact(present, targets)),
        constant_f1=multilabel.count(usual, targets).micro_f1,
        constant_match=_mean(multilabel.exact(usual, targets)),
        nll=multilabel.cross_entropy(probabilities, targets),
        temperature=spec.temperature,
        cost=tag_costs(present, targets, costs_of(spec), without=probabilities >= 0.5),
        tags=tuple(
            TagScore(
                name=name, images=int(images), support=int(support), average_precision=float(ap), precision=float(p),
                recall=float(r), f1=float(f1), threshold=float(limit),
            )
            for name, images, support, ap, p, r, f1, limit in columns
        ),
    )  # fmt: skip


def _tags_chance(name: str, value: float, baseline: float, *, better: bool) -> str:
    """Return a warning unless the mAP is `better` than that of 97.5 % of random rankings."""
    if np.isnan(value):
        return f"The output {name} has no mAP: no test image has any of its tags."
    if better:
        return ""
    return (
        f"The output {name} is not shown to be better than a random ranking: its mAP is {percent(value, 1)}, a random "
        f"one has {percent(baseline, 1)}. Check the tags, or test on more images."
    )


def _number(numbers: np.ndarray, targets: np.ndarray, spec: OutputSpec) -> OutputScore:
    median = float(np.median(targets))
    errors, guesses = np.abs(numbers - targets), np.abs(median - targets)
    means = [
        (weights @ np.column_stack([errors, guesses])) / len(targets) for weights in multilabel.drawn(len(targets))
    ]
    drawn = np.concatenate(means)
    value, baseline = float(errors.mean()), float(guesses.mean())
    spread = float(np.square(targets - targets.mean()).sum())
    chosen = np.unique(np.linspace(0, len(targets) - 1, min(_POINTS, len(targets))).astype(int))
    gain = _percentiles(drawn[:, 1] - drawn[:, 0])
    chance = (
        f"The output {spec.name} is not shown to be better than always answering the median {median:g}: its mean "
        f"error is {value:.4g}, the median's {baseline:.4g} (95 % interval of the gain: {gain[0]:.4g} to "
        f"{gain[1]:.4g}). Check the numbers, or test on more images."
    )
    return OutputScore(
        name=spec.name,
        kind="number",
        known=len(targets),
        score=skill(numbers, targets),
        value=value,
        interval=_percentiles(drawn[:, 0]),
        baseline=baseline,
        chance="" if gain[0] > 0 else chance,
        number=NumberScore(
            rmse=float(np.sqrt(np.square(errors).mean())),
            r2=1 - float(np.square(errors).sum()) / spread if spread else float("nan"),
            median=median,
            gain=gain,
            points=tuple((float(targets[i]), float(numbers[i])) for i in chosen),
        ),
    )


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else float("nan")
