"""Evaluation of an exported file on labelled images, in its runtime, by the figures of its task; no torch."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from effnet.data.datasets import DataLike, Dataset, Split
from effnet.runtimes.predictor import Predictor
from effnet.tasks.task import Task
from effnet.weights.labels import choose_images

Progress = Callable[[int, int], None]


class Mistake(Protocol):
    """A wrong answer; `index` is the place of its image in the split."""

    @property
    def index(self) -> int:
        """The place of the image."""
        ...


class Score(Protocol):
    """The result on one split, whatever the task."""

    @property
    def images(self) -> int:
        """The number of images."""
        ...

    @property
    def figure(self) -> float:
        """The task's figure (`Task.figure`)."""
        ...

    @property
    def headline(self) -> Mapping[str, float]:
        """The figures on top of a report by their keys, that of the task first; a file writes test_ before these."""
        ...

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """The worst answers, worst first, whose images a report may show."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """A table of a score: its columns, those of them that are text, its rows, and a sentence below it or nothing."""

    columns: Sequence[str]
    left: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


class Scoring(Protocol):
    """The module `scoring` of a task.

    `SCORE` is the class of its scores, a frozen dataclass; a report is read back by the types of its fields.
    """

    SCORE: type[Score]

    def evaluate_split(
        self,
        predictor: Predictor,
        split: Split,
        *,
        unknown_from: str | os.PathLike[str] | None,
        leaked: Collection[str],
        progress: Progress | None,
    ) -> Score:
        """Return the score of a bundle on a split; see `evaluate`."""
        ...

    def warnings_about(self, score: Score, dataset: Dataset, *, balanced: bool) -> list[str]:
        """Return the warnings that users of a model must see first, whose score on the test split is `score`.

        `balanced` says that training already balanced rare and frequent targets.
        """
        ...

    def lines(self, score: Score) -> Iterable[str]:
        """Return the lines that `effnet evaluate` prints of a score, its warnings among them."""
        ...

    def table(self, score: Score) -> ScoreTable:
        """Return the table below these lines."""
        ...


def scoring_of(task: Task) -> Scoring:
    """Return the module that scores the answers of a task."""
    return cast(Scoring, task.module("scoring"))


def evaluate(
    predictor: Predictor,
    data: Split | DataLike,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    progress: Progress | None = None,
) -> Any:
    """Score the bundle's deployed file on labelled images; the result is that of its task.

    For a classifier it is a ClassificationScore (effnet.measurement.classification.score), for several outputs a
    SeveralScore (effnet.measurement.several.score). `data` is a split, whose labels
    index the bundle's class names, or what `read_dataset` takes. Of the data that the bundle was fitted on, the test
    split is scored; of others, all images.

    `unknown_from` is a folder of images of none of the classes, to measure how many are rejected. `leaked` are the
    paths or names of images of which training has seen copies: accuracy is given without them as well. `progress`
    is called with the images done and in all. Raises DataError if the split or that folder is empty.
    """
    if isinstance(data, Split):
        split = data
    else:
        chosen = choose_images(data, folder=predictor.folder, config=predictor.config)
        split, leaked = chosen.split, leaked or chosen.leaked
    scoring = scoring_of(predictor.config.task_record)
    return scoring.evaluate_split(predictor, split, unknown_from=unknown_from, leaked=leaked, progress=progress)
