"""How far a model's probabilities can be trusted: temperature, calibration error, and when to say "unknown".

Everything here takes arrays: logits or probabilities [images, classes], labels [images] as class numbers. An
image's confidence is the probability of its likeliest class.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effnet.errors import DataError, InputError, MissingExtraError
from effnet.system.bounds import is_number
from effnet.system.text import brief

BINS = 15
DEFAULT_COVERAGE = 0.95
"""What is asked of a model that shall reject unknown images where no other aim was given."""

_TEMPERATURES = (0.05, 20.0)
# Of the bound on the error at one threshold. The largest of many thresholds that pass is taken, which a bound at
# 95 % does not allow for: where confidence says nothing, one choice in five was then over the error that was asked.
# At 99 % it is one in twenty (simulated; tests/training/test_calibration.py repeats it).
_SURENESS = 0.99
_CURVE_POINTS = 101
# To prove a smaller error takes more than four million images without a single wrong answer.
_LEAST_ERROR = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstain:
    """When a model shall answer "unknown": for a share of images to answer, or a largest error among answers.

    `unknown_from` is a folder of images of none of the classes, to measure how many are rejected; with neither
    aim given it asks for a coverage of 95 %.
    """

    coverage: float | None = None
    max_error: float | None = None
    unknown_from: str | None = None

    def __post_init__(self) -> None:
        if self.coverage is not None and self.max_error is not None:
            raise InputError("give --coverage or --max-error, not both")
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
        """What to choose a threshold for, as arguments of `choose_threshold`."""
        if self.unknown_from is not None and self.coverage is None and self.max_error is None:
            return {"coverage": DEFAULT_COVERAGE, "max_error": None}
        return {"coverage": self.coverage, "max_error": self.max_error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature and the threshold that were chosen on `images` validation images, and why in a sentence."""

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
    """The images whose confidence lies in (low, high]: their mean confidence, and the share that is right."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskCoverage:
    """What each threshold gives, from the strictest on: the share of images answered, and of those the share wrong.

    Arrays of one length. `aurc` is the area under risk over coverage: the mean, over images, of the risk at the
    strictest threshold that answers the image. Source: Geifman, Uziel, El-Yaniv, ICLR 2019 (arXiv 1805.08206).
    """

    thresholds: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    aurc: float

    def points(self, most: int = _CURVE_POINTS) -> tuple[tuple[float, float, float], ...]:
        """Return (threshold, coverage, risk) of at most so many thresholds, evenly over coverage, with the last."""
        wanted = np.searchsorted(self.coverage, np.linspace(0, 1, most), side="left")
        chosen = np.unique(np.minimum(wanted, len(self.coverage) - 1))
        rows = zip(self.thresholds[chosen], self.coverage[chosen], self.risk[chosen], strict=True)
        return tuple((float(t), float(c), float(r)) for t, c, r in rows)


def calibrate(
    probabilities: np.ndarray, labels: np.ndarray, abstain: Abstain, *, weights: np.ndarray | None = None
) -> Calibration:
    """Choose temperature and threshold from the probabilities that the model gives validation images at 1.

    `weights` [images] of mean 1 give the classes the frequencies that the probabilities assume: the temperature is
    fitted with them. A threshold promises what it does for images as they come, so that they all count alike there.
    Without any image the temperature stays 1 and there is no threshold.
    """
    aim = abstain.aim
    if not len(labels):
        sentence = "There were no validation images to calibrate on."
        return Calibration(images=0, temperature=1.0, threshold=None, sentence=sentence, **aim)
    # Probabilities give logits up to a constant an image, which softmax takes out again.
    temperature = fit_temperature(to_logits(probabilities), labels, weights=weights)
    tempered = apply_temperature(probabilities, temperature)
    threshold = choose_threshold(tempered, labels, **aim)
    return Calibration(
        images=len(labels),
        temperature=temperature,
        threshold=threshold,
        sentence=_say_threshold(threshold, len(labels), **aim),
        **aim,
    )


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 logits [images, classes] whose softmax is `probabilities`; zeros become 1e-38."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-38))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the float64 probabilities [images, classes] of the same logits divided by `temperature`."""
    return np.exp(_log_softmax(to_logits(probabilities) / temperature))


def fit_temperature(logits: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None) -> float:
    """Return the temperature in 0.05..20, to four digits, that gives `labels` the least negative log-likelihood.

    Images count by their `weights` [images] of mean 1 or, without, alike.
    One more image is counted with them, whose label is as likely the second best class as the best. So n images
    that are all right make the model (2n + 1) / (2n + 2) sure, and not surer. Where no temperature beats 1, it is 1.
    Source: Guo et al., ICML 2017 (arXiv 1706.04599), section 4.2; the further image is in the manner of Platt,
    "Probabilistic outputs for support vector machines", 1999, section 2.2.
    """
    try:
        from scipy.optimize import minimize_scalar
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    logits, labels = _checked(logits, labels)
    logits = logits - logits.max(1, keepdims=True)
    # Beside the sum over all classes only these are needed: the true class, the second best and the best.
    best = np.partition(logits, -2)[:, -2:] if logits.shape[1] > 1 else logits[:, [0, 0]]
    wanted = np.column_stack([logits[np.arange(len(labels)), labels], best])
    counts = np.array([len(labels), 0.5, 0.5])
    each = 1.0 if weights is None else weights[:, None]

    def cost(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        log_sum = np.log(np.exp(logits * scale).sum(1, keepdims=True))
        return float(((log_sum - wanted * scale) * each).mean(0) @ counts) / (len(labels) + 1)

    # The cost is convex in 1 / temperature, so that the least that a search finds is the least of all.
    low, high = map(math.log, _TEMPERATURES)
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    if not found.fun < cost(0.0) - 1e-9:
        return 1.0
    return float(f"{math.exp(found.x):.4g}")


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> tuple[Bin, ...]:
    """Return the bins of equal width over confidence that hold any image, from the least sure on."""
    confidence, right = confidences(probabilities, labels)
    # Bins are open below and closed above; the few confidences of 0 belong to the first.
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
    """Return the mean, over images, of |share right - mean confidence| of the image's bin.

    Bins are of equal width over confidence. Source: Guo et al., ICML 2017 (arXiv 1706.04599), eq. 3.
    """
    found = reliability(probabilities, labels, bins=bins)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in found) / len(labels)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log(probability of the true class), in nats."""
    probabilities, labels = _checked(probabilities, labels)
    return float(-to_logits(probabilities)[np.arange(len(labels)), labels].mean())


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """Return what every threshold that tells two images apart gives."""
    confidence, right = confidences(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    sure, answered = confidence[order], np.arange(1, len(order) + 1)
    risk = np.cumsum(~right[order]) / answered
    # A threshold cannot part equal confidences: only where the next one is lower does one end.
    last = np.append(sure[1:] < sure[:-1], True)
    sizes = np.diff(answered[last], prepend=0)
    return RiskCoverage(
        thresholds=sure[last],
        coverage=answered[last] / len(order),
        risk=risk[last],
        aurc=float((risk[last] * sizes).sum() / len(order)),
    )


def choose_threshold(
    probabilities: np.ndarray, labels: np.ndarray, *, coverage: float | None = None, max_error: float | None = None
) -> float | None:
    """Return the probability below which to answer "unknown", or None where nothing is asked or it cannot be had.

    For a coverage: as high as leaves that share of further such images answered on average (the quantile of
    conformal prediction), but at least the least confidence of all, which is what few images can tell. For an
    error: as low as keeps the share of wrong answers, by a one-sided Clopper-Pearson bound of 99 %, at most that.
    Source: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005; Clopper and Pearson,
    Biometrika 26 (1934), 404-413; Geifman and El-Yaniv, NeurIPS 2017 (arXiv 1705.08500).
    """
    if coverage == 1 or (coverage is None and max_error is None):
        return None
    if coverage is not None:
        confidence, _ = confidences(probabilities, labels)
        # The small number keeps 0.05 * 20 from being less than 1.
        rank = math.floor((1 - coverage) * (len(confidence) + 1) + 1e-9)
        return _just_below(np.sort(confidence)[min(max(rank, 1), len(confidence)) - 1])
    curve = risk_coverage(probabilities, labels)
    answered = np.rint(curve.coverage * len(labels))
    kept = np.flatnonzero(error_bound(np.rint(curve.risk * answered), answered) <= max_error)
    return _just_below(curve.thresholds[kept[-1]]) if len(kept) else None


def error_bound(wrong: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Return the one-sided Clopper-Pearson upper bound, at 99 %, of the error after `wrong` of `answered`."""
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    all_wrong = wrong >= answered
    return np.where(all_wrong, 1.0, beta.ppf(_SURENESS, wrong + 1, np.where(all_wrong, 1, answered - wrong)))


def _say_threshold(threshold: float | None, images: int, *, coverage: float | None, max_error: float | None) -> str:
    if coverage is None and max_error is None:
        return "No threshold was asked for: it always answers."
    aim = f"to answer {_percent(coverage)} of them" if max_error is None else f"for at most {_percent(max_error)} wrong"
    if threshold is not None:
        return f"The threshold was chosen on {images} validation images, {aim}."
    if max_error is None:
        return "To answer every image needs no threshold."
    needed = math.ceil(math.log(1 - _SURENESS) / math.log1p(-max_error))
    return (
        f"No threshold could be chosen {aim}: {images} validation images do not prove it. It takes {needed} without "
        f"a single wrong answer, so give more images or ask for less. It always answers."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def confidences(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's confidence as float64, and whether its likeliest class is right."""
    probabilities, labels = _checked(probabilities, labels)
    return probabilities.max(1), probabilities.argmax(1) == labels


def _just_below(confidence: float) -> float:
    """Return a threshold that this confidence reaches, even where another batch changes its last bits."""
    return round(max(0.0, float(confidence) - 1e-6), 6)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _checked(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays that fit each other; raises DataError where they do not, or are empty."""
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1] or not values.size:
        raise DataError(
            f"calibration needs [images, classes] with a label an image, and at least one; "
            f"got {values.shape} and {labels.shape}"
        )
    return values, labels
