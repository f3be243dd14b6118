"""Calibration of several outputs on validation images: temperatures, thresholds of tags and of "unknown"; no torch.

Rows are what a file returns before calibration, at temperature 1; unknown cells do not count.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from effnet.data.several.outputs import OutputSpec, placed
from effnet.measurement.classification import calibration
from effnet.measurement.classification.calibration import Abstain, Calibration
from effnet.system.text import printable
from effnet.tasks.costs import Costs, costs_of

# The weight of the probabilities in the choice of a threshold, in images with the tag. Measured with 75 validation
# images, in points of macro F1 over 0.5 for all tags: without it -2.4 on photographs with 5 tags, with it -0.8; on
# made-up tags that 5 % of images have +8 and +13. From some hundreds of images on both are alike.
_PRIOR = 20


def calibrate_outputs(
    rows: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec], abstain: Abstain
) -> tuple[tuple[OutputSpec, ...], Calibration]:
    """Return the outputs with temperatures and thresholds from validation images, and the record for a report.

    The record has no temperature or threshold of its own; its sentence is on those of "unknown".
    """
    found = []
    for place in placed(specs):
        spec, part, target = place.spec, rows[:, place.columns], targets[:, place.targets]
        if spec.kind == "one":
            spec = _calibrate_classes(part, target[:, 0], spec, abstain)
        elif spec.kind == "many":
            spec = _calibrate_tags(part, target, spec)
        found.append(spec)
    aim = abstain.aim
    record = Calibration(
        images=len(rows), temperature=1.0, threshold=None, sentence=_sentence(found, abstain, len(rows)), **aim
    )
    return tuple(found), record


def choose_tag_threshold(
    probabilities: np.ndarray, targets: np.ndarray, costs: tuple[float, float] | None = None
) -> float:
    """Return the threshold of one tag, probabilities and targets [images], of the highest expected F1.

    With `costs`, of missing the tag and of a false one, it has the least expected cost instead. A few images with the
    tag would decide by chance: the expected labels are those of the images mixed with their probabilities, which are
    calibrated and count as much as 20 images with the tag. All thresholds between two neighbouring probabilities decide
    alike: of the best, it is the middle of the part nearest to the usual one, or that itself if it is among them. The
    usual one is 0.5, with costs false / (miss + false), which is best for calibrated probabilities; it is the answer if
    the tag is never present.
    """
    usual = 0.5 if costs is None else costs[1] / (costs[0] + costs[1])
    known = ~np.isnan(targets)
    probabilities, on = np.asarray(probabilities, np.float64)[known], targets[known] > 0
    if not on.any():
        return usual
    weight = on.sum() / (on.sum() + _PRIOR)
    expected = weight * on + (1 - weight) * probabilities
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    last = np.append(ranked[1:] < ranked[:-1], True)
    # With a threshold in (lows, highs] all images down to this one are answered; the first is that of no image.
    highs = np.append(1.0, ranked[last])
    lows = np.append(ranked[last], -1.0)
    answered = np.append(0, np.flatnonzero(last) + 1)
    true = np.append(0, expected[order].cumsum()[last])
    merit = _merit(true, answered, float(expected.sum()), costs)
    best = np.flatnonzero((merit >= merit.max() - 1e-12) & (highs > lows))
    within = [usual if lows[i] < usual <= highs[i] else _middle(lows[i], highs[i]) for i in best]
    return min(within, key=lambda threshold: (abs(threshold - usual), threshold))


def fit_tag_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature of all tags, that of `calibration.fit_temperature` for two classes each."""
    known = ~np.isnan(targets)
    logits = tag_logits(probabilities[known])
    return calibration.fit_temperature(
        np.column_stack([np.zeros_like(logits), logits]), (targets[known] > 0).astype(int)
    )


def tag_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 logits whose sigmoid is `probabilities`; 0 and 1 become the nearest that float32 can hold."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-38, 1 - 2.0**-24)
    return np.log(clipped) - np.log1p(-clipped)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the float64 probabilities of tags with their logits divided by `temperature`."""
    return 1 / (1 + np.exp(-tag_logits(probabilities) / temperature))


def _middle(low: float, high: float) -> float:
    """Return a threshold above `low` and at most `high`."""
    middle = (max(low, 0.0) + high) / 2
    return float(middle if middle > low else high)


def _merit(true: np.ndarray, answered: np.ndarray, positive: float, costs: tuple[float, float] | None) -> np.ndarray:
    if costs is None:
        return 2 * true / (answered + positive)
    miss, false = costs
    return -(miss * (positive - true) + false * (answered - true))


def _calibrate_classes(part: np.ndarray, target: np.ndarray, spec: OutputSpec, abstain: Abstain) -> OutputSpec:
    known = ~np.isnan(target)
    if not known.any():
        return replace(spec, temperature=1.0, threshold=None)
    found = calibration.calibrate(part[known], target[known].astype(np.int64), abstain, costs=costs_of(spec))
    return replace(spec, temperature=found.temperature, threshold=found.threshold)


def _calibrate_tags(part: np.ndarray, target: np.ndarray, spec: OutputSpec) -> OutputSpec:
    temperature = 1.0 if np.isnan(target).all() else fit_tag_temperature(part, target)
    probabilities, costs = tempered(part, temperature), costs_of(spec)
    thresholds = tuple(
        choose_tag_threshold(probabilities[:, i], target[:, i], _costs_at(costs, i)) for i in range(len(spec.classes))
    )
    return replace(spec, temperature=temperature, thresholds=thresholds)


def _costs_at(costs: Costs | None, number: int) -> tuple[float, float] | None:
    return None if costs is None else (costs.miss[number], costs.false[number])


def _sentence(specs: Sequence[OutputSpec], abstain: Abstain, images: int) -> str:
    """Return a sentence on the thresholds below which outputs answer "unknown"."""
    if not images:
        return "There were no validation images to calibrate on."
    if abstain.aim == {"coverage": None, "max_error": None}:
        return "No threshold was requested: each output always answers."
    classes = [spec for spec in specs if spec.kind == "one"]
    got = ", ".join(f"{printable(spec.name)} {spec.threshold:.4g}" for spec in classes if spec.threshold is not None)
    none = ", ".join(printable(spec.name) for spec in classes if spec.threshold is None)
    parts = [f'Thresholds below which an output answers "unknown": {got}.'] if got else []
    parts += [f"No threshold could be chosen for {none}, which always answer."] if none else []
    return " ".join(parts) or "Only classes can be unknown; no output has them."
