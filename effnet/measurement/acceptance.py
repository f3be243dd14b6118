"""Accept or reject a reduced-precision export by its accuracy drop from fp32 on labelled images."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig, write_config
from effnet.data.datasets import Split
from effnet.errors import BudgetError, InputError
from effnet.measurement.answers import right_answers
from effnet.measurement.paired import Paired, paired, refusal
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.write import write_export
from effnet.system.bounds import is_number
from effnet.system.lock import SCRATCH
from effnet.system.text import brief

_REFERENCE = "onnx"

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


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The acceptance criterion of reduced-precision files: lose at most `max_drop` of fp32's accuracy on `split`.

    `place` is a folder for a temporary file.
    """

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    split: Split
    max_drop: float
    place: Path

    @cached_property
    def expected(self) -> np.ndarray:
        """Whether the fp32 ONNX file, which equals the eager network, is right on each image: bool [images]."""
        with tempfile.TemporaryDirectory(dir=self.place, prefix=SCRATCH) as name:
            scratch = Path(name)
            write_config(self.config, scratch)
            write_export(_REFERENCE, scratch, self.config, self.state)
            predictor = Predictor(scratch, format=_REFERENCE)
            found = right_answers(predictor, self.split)
            del predictor  # Windows cannot delete an open file
        return found

    def judge(self, predictor: Predictor, *, progress: Progress | None = None) -> Paired:
        """Compare the predictor's file with fp32; raise BudgetError if its accuracy drop is above `max_drop`."""
        expected, right = self.expected, right_answers(predictor, self.split, progress=progress)
        found = compared(expected, right, self.split, self.config)
        if lost := refusal(found, self.max_drop):
            raise BudgetError(
                f"{predictor.format.name} {lost}. It was not written: allow a larger --max-drop, or choose a higher "
                "precision"
            )
        return found
