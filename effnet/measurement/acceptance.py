"""Accept or reject a reduced-precision export by its drop from fp32 on labelled images: of accuracy, or of a figure."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from effnet.bundle.config import ModelConfig, write_config
from effnet.data.datasets import Split
from effnet.errors import BudgetError, InputError
from effnet.measurement.answers import right_answers
from effnet.measurement.evaluate import scoring_of
from effnet.measurement.paired import Paired, paired, refusal
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.write import write_export
from effnet.system.bounds import is_number
from effnet.system.lock import SCRATCH
from effnet.system.text import brief
from effnet.tasks.task import Figure

_REFERENCE = "onnx"

T = TypeVar("T")

Progress = Callable[[int, int], None]


def compared(before: np.ndarray, after: np.ndarray, split: Split, config: ModelConfig) -> Paired:
    """Return the comparison of two files of a model by their right answers on `split`.

    All classes count alike if they were balanced; of several outputs, the one that lost most counts.
    """
    parts = config.task_record.parts
    return paired(before, after, labels=split.labels if config.balanced and not parts else None, parts=parts)


def check_max_drop(value: float) -> None:
    """Raise InputError unless `value` is a share of the images from 0 to 1."""
    if not (is_number(value) and 0 <= value <= 1):
        raise InputError(
            f"max_drop must be a share of the images from 0 to 1 (0.005: half a percentage point); got {brief(value)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureDrop:
    """The effect of a lower precision on a task's figure on `images` images: from `before` to `after`."""

    images: int
    figure: Figure
    before: float
    after: float

    @property
    def title(self) -> str:
        """What drops."""
        return self.figure.title

    @property
    def drop(self) -> float:
        """What the figure loses; below 0 for an improvement, NaN if the images do not define it."""
        return self.figure.better(self.before) - self.figure.better(self.after)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-able data; those that the images do not define are None."""
        found = {"before": self.before, "after": self.after, "drop": self.drop}
        known = {key: None if math.isnan(value) else value for key, value in found.items()}
        return {"figure": self.figure.key, "images": self.images} | known

    def sentence(self) -> str:
        """Return the change in words."""
        shown = self.figure.shown
        return f"has {self.title} {shown(self.after)} on {self.images} images, and fp32 has {shown(self.before)}"

    def refusal(self, max_drop: float) -> str:
        """Return why a file is rejected: it loses more than `max_drop`; an empty string if it does not."""
        if self.drop <= max_drop + 1e-9:  # not if the drop is NaN
            return ""
        return f"{self.sentence()}: it may lose {100 * max_drop:g} percentage points"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The acceptance criterion of reduced-precision files: lose at most `max_drop` of fp32's accuracy on `split`.

    A task without right answers, such as detection, may lose as much of its figure, or `Task.figure_drop` if that is
    more. `place` is a folder for a temporary file.
    """

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    split: Split
    max_drop: float
    place: Path

    @cached_property
    def expected(self) -> np.ndarray:
        """Whether the fp32 ONNX file, which equals the eager network, is right on each image: bool [images]."""
        return self._of_reference(lambda predictor: right_answers(predictor, self.split))

    @cached_property
    def expected_figure(self) -> float:
        """The figure of the fp32 ONNX file."""
        return self._of_reference(self._figure)

    def _of_reference(self, measure: Callable[[Predictor], T]) -> T:
        """Return what is measured of the fp32 ONNX file."""
        with tempfile.TemporaryDirectory(dir=self.place, prefix=SCRATCH) as name:
            scratch = Path(name)
            write_config(self.config, scratch)
            write_export(_REFERENCE, scratch, self.config, self.state)
            predictor = Predictor(scratch, format=_REFERENCE)
            found = measure(predictor)
            del predictor  # Windows cannot delete an open file
        return found

    def _figure(self, predictor: Predictor, progress: Progress | None = None) -> float:
        scoring = scoring_of(self.config.task_record)
        score = scoring.evaluate_split(predictor, self.split, unknown_from=None, leaked=(), progress=progress)
        return score.figure

    def judge(self, predictor: Predictor, *, progress: Progress | None = None) -> Paired | FigureDrop:
        """Compare the predictor's file with fp32; raise BudgetError if its drop is above `max_drop`."""
        found: Paired | FigureDrop
        task = self.config.task_record
        if task.right is None:
            before, after = self.expected_figure, self._figure(predictor, progress)
            found = FigureDrop(images=len(self.split), figure=task.figure, before=before, after=after)
            lost = found.refusal(max(self.max_drop, task.figure_drop))
        else:
            expected, right = self.expected, right_answers(predictor, self.split, progress=progress)
            found = compared(expected, right, self.split, self.config)
            lost = refusal(found, self.max_drop)
        if lost:
            raise BudgetError(
                f"{predictor.format.name} {lost}. It was not written: allow a larger --max-drop, or choose a higher "
                "precision"
            )
        return found
