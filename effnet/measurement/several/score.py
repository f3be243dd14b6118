"""The score of a model of several outputs on labelled images: one for each output, their mean, the mistakes; no torch.

Cells that are unknown never count.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.data.several.outputs import Kind, OutputSpec, placed
from effnet.data.sources.source import source_name
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.unknown import strange_rows
from effnet.measurement.several.figures import mean_score
from effnet.measurement.several.multilabel import mean_known
from effnet.measurement.several.outputs import OutputScore, score_output
from effnet.measurement.several.text import lines, table, warnings_of
from effnet.runtimes.predictor import Predictor
from effnet.system.records import to_data
from effnet.tasks.costs import costs_of, decide
from effnet.tasks.several import tags_present

__all__ = ["SCORE", "SeveralScore", "evaluate_split", "lines", "score", "table", "warnings_about"]

# The mistakes of all outputs together, shared alike; of many outputs, one each of the first ones.
_MISTAKES, _MOST_MISTAKES = 24, 48


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMistake:
    """One wrong answer of an output; `index` is the image's place in the split.

    `label` and `predicted` are texts. `weight` is the probability of the wrong class, of the wrong answer on a tag, or
    the distance of a number from its target.
    """

    index: int
    source: str
    output: str
    kind: Kind
    label: str
    predicted: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanMean:
    """The mean score without the `leaked` images, copies of which training has seen; NaN if there are no others."""

    leaked: int
    images: int
    mean_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralScore:
    """The result on one split: `mean_score` is the mean over the outputs that can be scored, NaN if none can.

    `mistakes` are the worst of each output, worst first within it; `clean` is None if no image leaks.
    """

    images: int
    mean_score: float
    outputs: tuple[OutputScore, ...]
    clean: CleanMean | None
    mistakes: tuple[OutputMistake, ...]

    @property
    def figure(self) -> float:
        """The mean score."""
        return self.mean_score

    @property
    def headline(self) -> Mapping[str, float]:
        """The figure on top of a report."""
        return {"mean_score": self.mean_score}

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data; numbers that are NaN become None."""
        found: dict[str, Any] = to_data(self)
        return found


SCORE = SeveralScore


def evaluate_split(
    predictor: Predictor,
    split: Split,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> SeveralScore:
    """Score a model of several outputs on a split; see `effnet.measurement.evaluate.evaluate`."""
    rows, indices = predict_split(predictor, split, progress=progress)
    strange, unreadable = (None, 0) if unknown_from is None else strange_rows(predictor, unknown_from)
    return score(
        rows,
        split,
        predictor.config.specs,
        indices=indices,
        leaked=leaked,
        strange=strange,
        unreadable=unreadable,
        balanced=bool(predictor.config.balanced),
    )


def score(
    rows: np.ndarray,
    split: Split,
    specs: Sequence[OutputSpec],
    *,
    indices: np.ndarray | None = None,
    leaked: Collection[str] = (),
    strange: np.ndarray | None = None,
    unreadable: int = 0,
    balanced: bool = False,
) -> SeveralScore:
    """Return the score of rows [images, columns] against the targets of the split at `indices`, by default all.

    `strange` are rows of images of none of the classes, if there are any; `unreadable` more could not be read.
    `balanced` says that the model was trained to balance its classes.
    """
    indices = np.arange(len(split)) if indices is None else indices
    targets = split.labels[indices]
    names = [source_name(split.sources[int(i)], f"image {i}") for i in indices]
    outputs = [
        score_output(
            rows[:, place.columns],
            targets[:, place.targets],
            place.spec,
            strange=None if strange is None else strange[:, place.columns],
            unreadable=unreadable,
            balanced=balanced,
        )
        for place in placed(specs)
    ]
    return SeveralScore(
        images=len(rows),
        mean_score=mean_known(np.array([output.score for output in outputs])),
        outputs=tuple(outputs),
        clean=_clean(rows, targets, specs, names=names, leaked=leaked) if leaked else None,
        mistakes=tuple(_mistakes(rows, targets, specs, names=names, indices=indices))[:_MOST_MISTAKES],
    )


def _clean(
    rows: np.ndarray, targets: np.ndarray, specs: Sequence[OutputSpec], *, names: Sequence[str], leaked: Collection[str]
) -> CleanMean:
    known = frozenset(leaked)
    kept = np.array([name not in known for name in names], dtype=bool)
    found = mean_score(rows[kept], targets[kept], specs) if kept.any() else float("nan")
    return CleanMean(leaked=int((~kept).sum()), images=int(kept.sum()), mean_score=found)


def warnings_about(score: SeveralScore, dataset: Dataset, *, balanced: bool) -> list[str]:
    """Return the warnings that users must see first: outputs at chance level or without known values, and leaks."""
    return warnings_of(score)


def _mistakes(
    rows: np.ndarray,
    targets: np.ndarray,
    specs: Sequence[OutputSpec],
    *,
    names: Sequence[str],
    indices: np.ndarray,
) -> Iterator[OutputMistake]:
    """Yield the worst mistakes of each output; an image has one at most in each."""
    most = max(1, _MISTAKES // max(1, len(specs)))
    for place in placed(specs):
        spec, part, target = place.spec, rows[:, place.columns], targets[:, place.targets]
        weight, tag = _weights(part, target, spec)
        wrong = np.flatnonzero(weight > 0)
        for i in wrong[np.argsort(-weight[wrong], kind="stable")][:most]:
            label, predicted = _in_words(part[i], target[i], spec, tag=int(tag[i]))
            yield OutputMistake(
                index=int(indices[i]),
                source=names[i],
                output=spec.name,
                kind=spec.kind,
                label=label,
                predicted=predicted,
                weight=float(weight[i]),
            )


def _weights(part: np.ndarray, target: np.ndarray, spec: OutputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return how bad the answer to each image is, 0 if it is right or unknown, and the column where it is worst."""
    unknown = np.isnan(target)
    if spec.kind == "one":
        answer = decide(part, costs_of(spec))
        wrong = ~unknown[:, 0] & (answer != np.nan_to_num(target[:, 0]))
        return np.where(wrong, part[np.arange(len(part)), answer], 0.0), answer
    distance = np.where(unknown, 0.0, np.abs(part - np.where(unknown, 0.0, target)))
    if spec.kind == "many":
        distance = np.where(tags_present(part, spec) == (target > 0), 0.0, distance)
    worst = distance.argmax(1)
    return distance[np.arange(len(part)), worst], worst


def _in_words(part: np.ndarray, target: np.ndarray, spec: OutputSpec, *, tag: int) -> tuple[str, str]:
    """Return the label and the answer as texts; of tags those of the worst one."""
    if spec.kind == "one":
        return spec.classes[int(target[0])], spec.classes[tag]
    if spec.kind == "number":
        return f"{target[0]:g}", f"{part[0]:.6g}"
    name, there = spec.classes[tag], target[tag] > 0
    return (name, f"no {name}") if there else (f"no {name}", name)
