"""TensorBoard events of a training run: curves, images of its batches and of its errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.progress import EpochEnd, Step
from effnet.training.log.figures import image_sheet

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
# The first epochs, this many, show images of their first batch: rows of eight, or of four if wider than _SMALL pixels.
IMAGED_EPOCHS, _ROWS, _SMALL = 3, 4, 128
# A curve over steps has about this many points, however long the run; a point takes about a millisecond of a busy core.
_POINTS = 500
# Events that may wait for the disk before training waits.
_WAITING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The TensorBoard events of one run, all at the number of training steps done.

    Everything that belongs to a step after the checkpoint is written at a greater number than the checkpoint's, so that
    a resumed run can purge the steps that it will repeat.
    """

    writer: "SummaryWriter"

    def step(self, event: Step) -> None:
        """Plot loss, learning rate, speed and memory over the steps."""
        if event.step % max(1, event.total_steps // _POINTS):
            return
        for key in ("loss", "learning_rate", "images_per_second", "memory_mb"):
            self.writer.add_scalar(f"step/{key}", getattr(event, key), event.step)

    def epoch(self, row: EpochEnd, *, step: int) -> None:
        """Plot the results of an epoch, which ended after `step` steps."""
        for key, value in row.to_row().items():
            if key != "seconds":
                self.writer.add_scalar(f"epoch/{key}", value, step)

    def add_images(self, images: np.ndarray, *, step: int) -> None:
        """Add training images, uint8 [batch, R, R, C] before normalisation; `step` counts from 1."""
        columns = 8 if images.shape[2] <= _SMALL else 4
        sheet = image_sheet(images[: _ROWS * columns], columns=columns)
        self.writer.add_image("training images", sheet, step, dataformats="HWC")

    def errors(self, images: Mapping[str, np.ndarray], which: str, *, step: int) -> None:
        """Add the images of errors on the validation split, uint8 [H, W, 3] by name, of the `which` epoch."""
        for name, image in images.items():
            self.writer.add_image(f"{name}/{which}", image, step, dataformats="HWC")

    def flush(self) -> None:
        """Write pending events: a checkpoint must not include steps that the journal lacks."""
        self.writer.flush()


@contextmanager
def open_journal(folder: Path, *, purge_step: int) -> Iterator[Journal]:
    """Yield the journal of the run in `folder`; discard the events of earlier sessions from `purge_step` on."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / FOLDER, purge_step=purge_step, max_queue=_WAITING) as writer:
        yield Journal(writer=writer)
