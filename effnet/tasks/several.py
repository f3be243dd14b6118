"""Several outputs: each image has one of some classes, any of some tags, a number, or several of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from effnet.data.several.outputs import SEVERAL, OutputSpec, placed
from effnet.errors import BundleError
from effnet.tasks.classification import Prediction, check_probabilities, to_prediction
from effnet.tasks.costs import costs_of, decide
from effnet.tasks.task import Activation, Figure, Output, Task

_MEANINGS = {
    "one": "the probability of each class",
    "many": "the probability of each tag, on its own",
    "number": "the number",
}
_ACTIVATIONS: Mapping[str, Activation] = {"one": "softmax", "many": "sigmoid", "number": "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The tags of one image: those that are `present`, and the probability of each."""

    present: tuple[str, ...]
    probabilities: Mapping[str, float]


Answers = Mapping[str, Prediction | Tags | float]
"""The answer of each output, by its name."""


def file_outputs(specs: Sequence[OutputSpec]) -> tuple[Output, ...]:
    """Return what a model file returns, one output for each."""
    return tuple(
        Output(
            name=spec.name,
            activation=_ACTIVATIONS[spec.kind],
            meaning=_MEANINGS[spec.kind],
            titled="a network of several outputs",
            width=spec.width,
            mean=spec.mean,
            scale=spec.scale,
        )
        for spec in specs
    )


def check_rows(rows: np.ndarray, path: Path, *, specs: Sequence[OutputSpec]) -> None:
    """Raise BundleError unless rows, float32 [batch, columns], are possible answers of all outputs."""
    for place in placed(specs):
        part = rows[:, place.columns]
        if place.spec.kind == "one":
            check_probabilities(part, path)
        elif not np.isfinite(part).all() or (place.spec.kind == "many" and ((part < 0) | (part > 1)).any()):
            wanted = "probabilities, from 0 to 1" if place.spec.kind == "many" else "finite numbers"
            raise BundleError(
                f"{path} must return {wanted} as its output {place.spec.name}; it is damaged or another model. "
                "`effnet export` writes it again"
            )


def answers(
    row: np.ndarray, names: Sequence[str], *, top: int, threshold: float | None, specs: Sequence[OutputSpec]
) -> Answers:
    """Return the answer of each output to one image, from its row [columns].

    `threshold` replaces those of the outputs below which the answer is "unknown": 0 for never, None for their own.
    """
    found: dict[str, Prediction | Tags | float] = {}
    for place in placed(specs):
        part, spec = row[place.columns], place.spec
        if spec.kind == "one":
            least = (spec.threshold or 0.0) if threshold is None else threshold
            found[spec.name] = to_prediction(part, spec.classes, top=top, threshold=least, costs=costs_of(spec))
        elif spec.kind == "many":
            found[spec.name] = Tags(
                present=tuple(tag for tag, on in zip(spec.classes, tags_present(part, spec), strict=True) if on),
                probabilities={tag: float(value) for tag, value in zip(spec.classes, part, strict=True)},
            )
        else:
            found[spec.name] = float(part[0])
    return found


def tags_present(probabilities: np.ndarray, spec: OutputSpec) -> np.ndarray:
    """Return which tags are present, bool of the shape of `probabilities` [..., tags]."""
    present: np.ndarray = probabilities >= np.array(spec.thresholds or (0.5,) * len(spec.classes))
    return present


def right_answers(rows: np.ndarray, targets: np.ndarray, *, specs: Sequence[OutputSpec]) -> np.ndarray:
    """Return which answers are right, int8 [images, target columns]: 1 right, 0 wrong, -1 unknown.

    Each tag has its own; a number is right within the output's tolerance.
    """
    parts = []
    for place in placed(specs):
        part, target, spec = rows[:, place.columns], targets[:, place.targets], place.spec
        if spec.kind == "one":
            right = decide(part, costs_of(spec))[:, None] == target
        elif spec.kind == "many":
            right = tags_present(part, spec) == (target > 0)
        else:
            right = np.abs(part - target) <= spec.tolerance
        parts.append(np.where(np.isnan(target), -1, right).astype(np.int8))
    return np.concatenate(parts, axis=1)


def bind(specs: Sequence[OutputSpec]) -> Task:
    """Return the task of a model with these outputs."""
    return Task(
        name="several",
        title="several outputs",
        labels=SEVERAL,
        output=Output(
            name="outputs",
            activation="none",
            meaning="the answers of all outputs",
            titled="a network of several outputs",
        ),
        figure=Figure(key="mean_score", title="mean score of the outputs"),
        check=partial(check_rows, specs=tuple(specs)),
        answer=partial(answers, specs=tuple(specs)),
        right=partial(right_answers, specs=tuple(specs)),
        learning="effnet.training.several.learning",
        scoring="effnet.measurement.several.score",
        reporting="effnet.report.several.section",
        calibrated=True,
        pretrained=True,
        bind=bind,
        several=file_outputs(specs),
        parts=tuple((spec.name, spec.target_width) for spec in specs),
    )


TASK = bind(())
