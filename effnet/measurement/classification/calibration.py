"""Calibration of a model's probabilities: temperature scaling, calibration error, and the "unknown" threshold.

Everything here takes arrays: logits or probabilities [images, classes], labels [images] as class numbers. An
image's confidence is its largest probability.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effnet.errors import DataError, InputError, MissingExtraError, nearest
from effnet.system.bounds import is_number
from effnet.system.text import brief
from effnet.tasks.costs import Costs, decide
from effnet.tasks.known import TITLES

BINS = 15
AUTO = "auto"
"""The score that leave-one-class-out chooses."""
DEFAULT_COVERAGE = 0.95
"""The coverage of a model that rejects unknown images if no other aim was given."""

_TEMPERATURES = (0.05, 20.0)
# Confidence level of the bound on the error at one threshold. The choice takes the largest coverage among many
# thresholds that pass, and a bound at 95 % does not correct for that: with uninformative confidences one choice in five
# exceeded the requested error. At 99 % it is one in twenty (simulated; tests/measurement/test_calibration.py repeats
# it).
_SURENESS = 0.99
_CURVE_POINTS = 101
# To prove a smaller error takes more than four million images without a single wrong answer.
_LEAST_ERROR = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstain:
    """When a model answers "unknown": given the share of images to answer, or the maximum error among answers.

    `unknown_from` is a folder of images of none of the classes, to measure the share rejected; without either
    aim it implies a coverage of 95 %. `score` is the one that says "unknown" (effnet.tasks.known), or auto.
    """

    coverage: float | None = None
    max_error: float | None = None
    unknown_from: str | None = None
    score: str = "probability"

    def __post_init__(self) -> None:
        if self.score not in (AUTO, *TITLES):
            known = (AUTO, *TITLES)
            hint = nearest(str(self.score), known)
            raise InputError(f"unknown_score must be one of {', '.join(known)}; got {brief(self.score)}{hint}")
        if self.coverage is not None and self.max_error is not None:
            raise InputError("give coverage or max_error, not both")
        if self.coverage is not None and not (is_number(self.coverage) and 0 < self.coverage <= 1):
            got = brief(self.coverage)
            raise InputError(f"coverage must be a share above 0 and at most 1, such as 0.95; got {got}")
        if self.max_error is not None and not (is_number(self.max_error) and 0 < self.max_error < 1):
            got = brief(self.max_error)
            raise InputError(f"max_error must be a share between 0 and 1, such as 0.01; got {got}")
        if self.max_error is not None and self.max_error < _LEAST_ERROR:
            raise InputError(f"max_error must be at least {_LEAST_ERROR:f}; got {self.max_error}")

    @property
    def aim(self) -> dict[str, float | None]:
        """The aim of the threshold, as arguments of `choose_threshold`."""
        if self.unknown_from is not None and self.coverage is None and self.max_error is None:
            return {"coverage": DEFAULT_COVERAGE, "max_error": None}
        return {"coverage": self.coverage, "max_error": self.max_error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature and threshold chosen on `images` validation images, and a sentence that explains them."""

    images: int
    temperature: float
    threshold: float | None
    coverage: float | None
    max_error: float | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The images whose confidence lies in (low, high]: their mean confidence and their accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskCoverage:
    """Coverage (share of images answered) and risk (error among those) of each threshold, the strictest first.

    Arrays of one length. `aurc` is the area under risk over coverage: the mean, over images, of the risk at the
    strictest threshold that answers the image. Source: Geifman, Uziel, El-Yaniv, ICLR 2019 (arXiv 1805.08206).
    """

    thresholds: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    aurc: float

    def points(self, most: int = _CURVE_POINTS) -> tuple[tuple[float, float, float], ...]:
        """Return (threshold, coverage, risk) of at most `most` thresholds, evenly over coverage, with the last."""
        wanted = np.searchsorted(self.coverage, np.linspace(0, 1, most), side="left")
        chosen = np.unique(np.minimum(wanted, len(self.coverage) - 1))
        rows = zip(self.thresholds[chosen], self.coverage[chosen], self.risk[chosen], strict=True)
        return tuple((float(t), float(c), float(r)) for t, c, r in rows)


def calibrate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    abstain: Abstain,
    *,
    weights: np.ndarray | None = None,
    costs: Costs | None = None,
) -> Calibration:
    """Choose temperature and threshold from the probabilities of validation images at temperature 1.

    `weights` [images] of mean 1 give the classes the frequencies that the probabilities assume; only the temperature
    is fitted with them. The threshold's promise holds for images as they come, so all count alike there, and for the
    answers, which `costs` may decide. Without any image the temperature stays 1 and there is no threshold.
    """
    aim = abstain.aim
    if not len(labels):
        sentence = "There were no validation images to calibrate on."
        return Calibration(images=0, temperature=1.0, threshold=None, sentence=sentence, **aim)
    # Probabilities give logits up to a constant per image, which softmax cancels.
    temperature = fit_temperature(to_logits(probabilities), labels, weights=weights)
    tempered = apply_temperature(probabilities, temperature)
    threshold = choose_threshold(tempered, labels, coverage=aim["coverage"], max_error=aim["max_error"], costs=costs)
    return Calibration(
        images=len(labels),
        temperature=temperature,
        threshold=threshold,
        sentence=say_threshold(threshold, len(labels), **aim),
        **aim,
    )


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 logits [images, classes] whose softmax is `probabilities`; zeros become 1e-38."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-38))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the float64 probabilities [images, classes] of the same logits divided by `temperature`."""
    return np.exp(_log_softmax(to_logits(probabilities) / temperature))


def fit_temperature(logits: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None) -> float:
    """Return the temperature in 0.05..20, to four digits, that minimises the negative log-likelihood of `labels`.

    Images count by their `weights` [images] of mean 1; without weights, all alike.
    One pseudo-image is added, whose label is equally likely the best or the second best class: n images that are all
    right limit the confidence to (2n + 1) / (2n + 2). If no temperature beats 1, it is 1.
    Source: Guo et al., ICML 2017 (arXiv 1706.04599), section 4.2; the pseudo-image follows Platt,
    "Probabilistic outputs for support vector machines", 1999, section 2.2.
    """
    try:
        from scipy.optimize import minimize_scalar
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    logits, labels = _checked(logits, labels)
    logits = logits - logits.max(1, keepdims=True)
    # Apart from the sum over all classes, only these are needed: the true class, the second best and the best.
    best = np.partition(logits, -2)[:, -2:] if logits.shape[1] > 1 else logits[:, [0, 0]]
    wanted = np.column_stack([logits[np.arange(len(labels)), labels], best])
    counts = np.array([len(labels), 0.5, 0.5])
    each = 1.0 if weights is None else weights[:, None]

    def cost(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        log_sum = np.log(np.exp(logits * scale).sum(1, keepdims=True))
        return float(((log_sum - wanted * scale) * each).mean(0) @ counts) / (len(labels) + 1)

    # The cost is convex in 1 / temperature, so a local minimum is the global one.
    low, high = map(math.log, _TEMPERATURES)
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    if not found.fun < cost(0.0) - 1e-9:
        return 1.0
    return float(f"{math.exp(found.x):.4g}")


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> tuple[Bin, ...]:
    """Return the non-empty bins of equal width over confidence, the lowest confidence first."""
    confidence, right = confidences(probabilities, labels)
    # Bins are open below and closed above; confidences of 0 go into the first.
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count, sure, good = (np.bincount(number, w, minlength=bins) for w in (None, confidence, right.astype(float)))
    return tuple(
        Bin(
            low=i / bins,
            high=(i + 1) / bins,
            images=int(count[i]),
            confidence=float(sure[i] / count[i]),
            accuracy=float(good[i] / count[i]),
        )
        for i in np.flatnonzero(count)
    )


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean, over images, of |accuracy - mean confidence| of the bin.

    Bins are of equal width over confidence. Source: Guo et al., ICML 2017 (arXiv 1706.04599), eq. 3.
    """
    found = reliability(probabilities, labels, bins=bins)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in found) / len(labels)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log(probability of the true class), in nats."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log(probability of the true class) of each image, [images], in nats."""
    probabilities, labels = _checked(probabilities, labels)
    losses: np.ndarray = -to_logits(probabilities)[np.arange(len(labels)), labels]
    return losses


def risk_coverage(
    probabilities: np.ndarray, labels: np.ndarray, *, costs: Costs | None = None, scores: np.ndarray | None = None
) -> RiskCoverage:
    """Return coverage and risk of every distinct threshold; costs of wrong answers, if any, decide the answers.

    The thresholds are those of the largest probability, or of `scores` [images].
    """
    confidence, right = confidences(probabilities, labels, costs=costs)
    confidence = confidence if scores is None else scores
    order = np.argsort(-confidence, kind="stable")
    sure, answered = confidence[order], np.arange(1, len(order) + 1)
    risk = np.cumsum(~right[order]) / answered
    # A threshold cannot separate equal confidences: a step ends only where the next confidence is lower.
    last = np.append(sure[1:] < sure[:-1], True)
    sizes = np.diff(answered[last], prepend=0)
    return RiskCoverage(
        thresholds=sure[last],
        coverage=answered[last] / len(order),
        risk=risk[last],
        aurc=float((risk[last] * sizes).sum() / len(order)),
    )


def choose_threshold(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    coverage: float | None = None,
    max_error: float | None = None,
    costs: Costs | None = None,
    scores: np.ndarray | None = None,
) -> float | None:
    """Return the probability below which to answer "unknown", or None if no aim is given or none can reach it.

    With `scores` [images] it is the score below which to do so.

    For a coverage: the highest threshold that answers that share of new images on average (the quantile of
    conformal prediction), but at least the smallest confidence, the limit of few images. For an error: the lowest
    threshold whose share of wrong answers has a one-sided 99 % Clopper-Pearson bound of at most that error.
    Source: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005; Clopper and Pearson,
    Biometrika 26 (1934), 404-413; Geifman and El-Yaniv, NeurIPS 2017 (arXiv 1705.08500).
    """
    if coverage == 1 or (coverage is None and max_error is None):
        return None
    if coverage is not None:
        confidence = confidences(probabilities, labels)[0] if scores is None else scores
        # The small number keeps 0.05 * 20 from being less than 1.
        rank = math.floor((1 - coverage) * (len(confidence) + 1) + 1e-9)
        return _just_below(np.sort(confidence)[min(max(rank, 1), len(confidence)) - 1], bounded=scores is None)
    curve = risk_coverage(probabilities, labels, costs=costs, scores=scores)
    answered = np.rint(curve.coverage * len(labels))
    kept = np.flatnonzero(error_bound(np.rint(curve.risk * answered), answered) <= max_error)
    return _just_below(curve.thresholds[kept[-1]], bounded=scores is None) if len(kept) else None


def error_bound(wrong: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Return the one-sided 99 % Clopper-Pearson upper bound of the error for `wrong` of `answered`."""
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    all_wrong = wrong >= answered
    return np.where(all_wrong, 1.0, beta.ppf(_SURENESS, wrong + 1, np.where(all_wrong, 1, answered - wrong)))


def say_threshold(threshold: float | None, images: int, *, coverage: float | None, max_error: float | None) -> str:
    """Return a sentence on a chosen threshold, and on one that could not be chosen."""
    if coverage is None and max_error is None:
        return "No threshold was requested: the model always answers."
    share = _percent(coverage) if coverage is not None and max_error is None else ""
    aim = f"to answer {share} of them" if max_error is None else f"for at most {_percent(max_error)} wrong"
    if threshold is not None:
        return f"The threshold was chosen on {images} validation images, {aim}."
    if max_error is None:
        return "Answering every image needs no threshold."
    needed = math.ceil(math.log(1 - _SURENESS) / math.log1p(-max_error))
    return (
        f"No threshold could be chosen {aim}: {images} validation images do not prove it. That needs at least {needed} "
        f"images without a single wrong answer: add images or relax the aim. The model always answers."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def confidences(
    probabilities: np.ndarray, labels: np.ndarray, *, costs: Costs | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's confidence as float64, and whether its answer is right: the top class, or as costs decide."""
    probabilities, labels = _checked(probabilities, labels)
    return probabilities.max(1), decide(probabilities, costs) == labels


def _just_below(confidence: float, *, bounded: bool) -> float:
    """Return a threshold that this confidence reaches, even if another batch size changes its last bits.

    A probability is at least 0; a score can be any number.
    """
    if bounded:
        return round(max(0.0, float(confidence) - 1e-6), 6)
    return round(float(confidence) - 1e-5 * max(1.0, abs(float(confidence))), 6)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _checked(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays; raise DataError if their shapes do not match or are empty."""
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1] or not values.size:
        raise DataError(
            f"calibration needs values [images, classes] and a label per image, of at least one image; "
            f"got {values.shape} and {labels.shape}"
        )
    return values, labels
