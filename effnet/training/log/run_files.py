"""The files of a run; of several processes only the first writes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from effnet.progress import EpochEnd, Step
from effnet.training.learning import Validated
from effnet.training.log.metrics import append_metrics, rewrite_metrics
from effnet.training.log.tensorboard import IMAGED_EPOCHS, Journal, open_journal
from effnet.training.state.checkpoint import BEST, load_best, save_checkpoint
from effnet.training.state.position import Position
from effnet.training.state.state import State
from effnet.training.state.tensorfile import save_tensors


class Records:
    """The files of one run: checkpoints, best weights, metrics.jsonl and the journal; none of them unless `main`."""

    def __init__(self, folder: Path, names: Sequence[str], *, keep: int, main: bool) -> None:
        self.folder, self.names, self.keep, self.main = folder, names, keep, main
        self.journal: Journal | None = None

    @contextmanager
    def opened(self, position: Position, *, batches: int) -> Iterator[None]:
        """Record events inside the context; discard those that an earlier session wrote beyond `position`."""
        if not self.main:
            yield
            return
        # An epoch's results have the number of its last step; a checkpoint right after that step lacks them.
        purge_step = position.step + (position.batch < batches)
        with open_journal(self.folder, purge_step=purge_step) as self.journal:
            yield

    def begin(self, position: Position) -> None:
        """Remove the lines of epochs that will be trained again."""
        if self.main:
            rewrite_metrics(self.folder, position.history)

    def add_images(self, images: np.ndarray, position: Position) -> None:
        """Add the first batch of each of the first epochs, unless they are kept feature maps."""
        if images.dtype == np.uint8 and self.journal and position.batch == 0 and position.epoch < IMAGED_EPOCHS:
            self.journal.add_images(images, step=position.step + 1)

    def step(self, event: Step) -> None:
        """Record a step."""
        if self.journal:
            self.journal.step(event)

    def metrics(self, row: EpochEnd) -> None:
        """Add an epoch's line to metrics.jsonl."""
        if self.main:
            append_metrics(self.folder, row.to_row())

    def epoch(self, row: EpochEnd, *, step: int) -> None:
        """Record the results of an epoch, which ended after `step` steps."""
        if self.journal:
            self.journal.epoch(row, step=step)

    def images(self, found: Validated, *, step: int, best: bool, last: bool) -> None:
        """Add the images of the errors of an epoch that is the best so far, or the last."""
        if self.journal and (best or last):
            images = found.images(self.names)
            for which in ("best",) * best + ("last",) * last:
                self.journal.errors(images, which, step=step)

    def keep_best(self, model: nn.Module) -> None:
        """Write the best weights so far."""
        if self.main:
            save_tensors(model.state_dict(), self.folder / BEST)

    def best(self) -> dict[str, Tensor] | None:
        """Return the best weights; None on all processes but the first."""
        return load_best(self.folder) if self.main else None

    def save(self, position: Position, state: State) -> None:
        """Write a checkpoint."""
        if self.journal:
            self.journal.flush()  # before saving: events up to the checkpoint are not written again
        if self.main:
            save_checkpoint(self.folder, position, state, keep=self.keep)
