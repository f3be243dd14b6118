"""Image classification: each image has one of several classes, and the answer is a probability of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from effnet.data.hierarchy import parents
from effnet.data.labels import CLASSES, Names
from effnet.errors import BundleError
from effnet.tasks.costs import Costs, decide
from effnet.tasks.known import KnownScore
from effnet.tasks.task import Figure, Output, Task

UNKNOWN = "unknown"
"""The answer to an image of low confidence."""

# Its logarithm is finite.
_LEAST_PROBABILITY = 1e-30
# The sums of effnet's own files differ from 1 by a millionth, also in int8: all of them compute softmax in fp32.
# bfloat16 rounds each probability to 0.4 %.
_SUM_TOLERANCE, _RANGE_TOLERANCE = 2e-2, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The most probable classes of one image, best first; if wrong answers have costs, those of least expected cost.

    `known` is false if even the most probable is below the threshold: the image may belong to none of the classes.
    `parents` are the probabilities of the parents, as "animal" is of "animal/dog" and "animal/cat": sums of theirs.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    known: bool = True
    parents: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The best class, or "unknown"."""
        return self.labels[0] if self.known else UNKNOWN


def to_prediction(
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    top: int,
    threshold: float | None = 0.0,
    costs: Costs | None = None,
    known: KnownScore | None = None,
) -> Prediction:
    """Return the `top` best classes of one row [classes], and whether the most probable reaches `threshold`.

    A row may have the score as one more column (effnet.runtimes.predictor); without a `threshold` it decides, by that
    of `known`.
    """
    row, probabilities = probabilities, probabilities[: len(class_names)]
    if threshold is None:
        assert known is not None
        is_known = known.knows(float(row[-1]))
    else:
        is_known = float(probabilities.max()) >= threshold
    merit = -costs.expected(probabilities) if costs else probabilities
    best = np.argsort(-merit, kind="stable")[: max(1, top)]
    return Prediction(
        labels=tuple(class_names[i] for i in best),
        probabilities=tuple(float(probabilities[i]) for i in best),
        known=is_known,
        parents={name: float(probabilities[leaves].sum()) for name, leaves in _leaves(tuple(class_names))},
    )


@lru_cache(maxsize=64)
def _leaves(class_names: Names) -> tuple[tuple[str, list[int]], ...]:
    """Return each parent and the numbers of its classes, not again for each image; none if no two have the same."""
    found = parents(class_names)
    joined = any(len(leaves) > 1 for leaves in found.values())  # ImageNet's "read/write head" is no hierarchy
    return tuple((name, list(leaves)) for name, leaves in found.items()) if joined else ()


def over_frames(rows: np.ndarray) -> np.ndarray:
    """Return the probabilities [classes] for several frames together, from those of each, float32 [frames, classes].

    It is softmax of the mean of the frames' logits: what the last layer, which is linear, makes of the mean of their
    features.
    """
    values = np.log(np.maximum(rows.astype(np.float64), _LEAST_PROBABILITY)).mean(0)
    found = np.exp(values - values.max())
    return (found / found.sum()).astype(np.float32)


def check_probabilities(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless each row of float32 [batch, classes] holds probabilities."""
    low, high = rows.min(initial=0.0), rows.max(initial=0.0)
    # Written so that NaN fails.
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise BundleError(
            f"{path} must return probabilities, from 0 to 1; it returned {low:.4g} to {high:.4g}: it is damaged or "
            "another model. `effnet export` writes it again"
        )
    if len(rows) and not np.abs((sums := rows.sum(1)) - 1).max() <= _SUM_TOLERANCE:
        raise BundleError(
            f"{path} must return probabilities, whose sum is 1; theirs lies in {sums.min():.4g}..{sums.max():.4g}: it "
            "is damaged or another model. `effnet export` writes it again"
        )


def right_classes(probabilities: np.ndarray, labels: np.ndarray, *, costs: Costs | None = None) -> np.ndarray:
    """Return whether the class that answers each row [images, classes] is that of its label, bool [images]."""
    right: np.ndarray = decide(probabilities, costs) == labels
    return right


PROBABILITIES = Output(
    name="probabilities",
    activation="softmax",
    meaning="the probability of each class",
    titled="an image classifier",
)

TASK = Task(
    name="classification",
    title="image classification",
    labels=CLASSES,
    output=PROBABILITIES,
    figure=Figure(key="accuracy", title="accuracy"),
    balanced_figure=Figure(key="balanced_accuracy", title="balanced accuracy"),
    check=check_probabilities,
    answer=to_prediction,
    right=right_classes,
    learning="effnet.training.classification.learning",
    scoring="effnet.measurement.classification.score",
    reporting="effnet.report.classification.section",
    calibrated=True,
    pretrained=True,
)


def bound(*, costs: Costs | None, known: KnownScore | None = None) -> Task:
    """Return the task of a classifier whose wrong answers have these costs, and that has this score."""
    if not costs and known is None:
        return TASK
    right = partial(right_classes, costs=costs) if costs else right_classes
    return replace(TASK, answer=partial(to_prediction, costs=costs or None, known=known), right=right)
