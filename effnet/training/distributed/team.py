"""Several processes in one fit: the first does all of it, the others join it in training."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import EffnetError, SaidElsewhere
from effnet.progress import Listener
from effnet.system.signals import exit_code
from effnet.training.distributed.ranks import Ranks
from effnet.training.learning import Learning
from effnet.training.loop import TrainResult, train
from effnet.training.losses import LossFn
from effnet.training.recipe.schema import Recipe
from effnet.training.state.position import CHECKPOINT_SECONDS

Report = Any
"""What the job returns; only the job knows its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training that the first process broadcasts to the others; they write nothing to its `folder`.

    `make_loss`, of a module, gives the loss of a process that needs the others' for it; by default it is the task's.
    `learning` replaces that of the data's task.
    """

    model: nn.Module
    dataset: Dataset
    recipe: Recipe
    preprocess: Preprocess
    folder: Path
    deadline_seconds: float | None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    make_loss: Callable[[Ranks], LossFn] | None = None
    learning: Learning | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _LastWord:
    """The end of a fit: its report, or the exit code of its error without one."""

    report: Report | None
    exit_code: int = EffnetError.exit_code


def train_together(training: Training, ranks: Ranks, *, listener: Listener) -> TrainResult:
    """Train on every process, with the first one's `listener`; the others are in `follow`."""
    return _train(ranks.tell(training), ranks, listener)


def _train(training: Training, ranks: Ranks, listener: Listener | None = None) -> TrainResult:
    return train(
        training.model,
        training.dataset,
        training.recipe,
        training.preprocess,
        folder=training.folder,
        loss_fn=training.make_loss and training.make_loss(ranks),
        listener=listener,
        deadline_seconds=training.deadline_seconds,
        checkpoint_seconds=training.checkpoint_seconds,
        ranks=ranks,
        learning=training.learning,
    )


def lead(ranks: Ranks, work: Callable[[], Report]) -> Report:
    """Return the report of `work`, done by the first process, which releases the others however it ends."""
    last = _LastWord(report=None)
    try:
        last = _LastWord(report=work())
    except EffnetError as error:
        last = _LastWord(report=None, exit_code=error.exit_code)
        raise
    except KeyboardInterrupt as error:
        last = _LastWord(report=None, exit_code=exit_code(error))
        raise
    finally:
        # After an error, that error must be reported, and not that the other processes have ended as well.
        with suppress(EffnetError) if last.report is None else nullcontext():
            if not ranks.over:
                ranks.tell(last)
    assert last.report is not None
    return last.report


def follow(ranks: Ranks) -> Report:
    """Join in training until the first process is done, and return its report.

    Raises SaidElsewhere if it failed.
    """
    while True:
        asked = ranks.tell(None)
        if isinstance(asked, Training):
            _train(asked, ranks)
        elif asked.report is None:
            raise SaidElsewhere(asked.exit_code)
        else:
            return asked.report
