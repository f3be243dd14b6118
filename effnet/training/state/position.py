"""The progress of a run, its stopping rules and its divergence check."""

from dataclasses import dataclass, field
from typing import Any

from effnet.training.recipe.schema import Recipe

# A killed run loses at most about this much of its training.
CHECKPOINT_SECONDS = 20.0
# A network begins with the loss of guesses at worst; a loss this many times theirs, for this many consecutive steps, is
# neither noise nor warm-up.
_EXPLODED, _HIGH_STEPS = 10.0, 200


@dataclass(kw_only=True)
class Position:
    """The progress of a run: `batch` batches of epoch `epoch` (from 0) are done, `step` in all.

    `epochs` is the requested number, 0 in checkpoints of an older effnet. `processes` is how many train. `first_loss`
    is that of the first step; `high_steps` counts the latest consecutive steps whose loss was many times as high.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = -1
    best_score: tuple[float, float] = (float("-inf"), float("-inf"))
    last_better: int = -1
    first_loss: float = 0.0
    high_steps: int = 0
    finished: str = ""
    epochs: int = 0
    processes: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, loss: float, *, images: int, seconds: float) -> None:
        """Count a finished step."""
        if self.step == 0:
            self.first_loss = loss
        self.batch += 1
        self.step += 1
        self.loss_sum += loss * images
        self.images += images
        self.spend(seconds)

    def spend(self, seconds: float) -> None:
        """Add training time."""
        self.seconds += seconds
        self.epoch_seconds += seconds

    def watch(self, loss: float, *, guessed: float) -> bool:
        """Return whether training has diverged: the loss has been far above that of guessing, `guessed`, for long."""
        bound = _EXPLODED * max(self.first_loss, guessed)
        self.high_steps = self.high_steps + 1 if loss > bound else 0
        return self.high_steps >= _HIGH_STEPS

    def extend(self, epochs: int) -> bool:
        """Store the requested number of epochs; return whether it grew, so that a finished run continues."""
        more = 0 < (self.epochs or (self.epoch if self.finished else 0)) < epochs
        if more:
            self.finished = ""
        self.epochs = epochs
        return more

    def next_epoch(self) -> None:
        """Count a finished epoch."""
        self.epoch += 1
        self.batch, self.loss_sum, self.images, self.epoch_seconds = 0, 0.0, 0, 0.0

    def verdict(self, recipe: Recipe, deadline_seconds: float | None) -> str:
        """Return why training stops, or an empty string."""
        epochs, patience = recipe.train.epochs, recipe.train.patience
        if self.epoch >= epochs:
            return f"finished {epochs} epochs"
        if patience and self.epoch - 1 - self.last_better >= patience:
            return f"no better validation result for {patience} epochs"
        if deadline_seconds is not None and self.seconds > deadline_seconds:
            return f"out of time after epoch {self.epoch} of {epochs}"
        return ""

    @property
    def images_per_second(self) -> float:
        """The training throughput of this epoch."""
        return self.images / max(self.epoch_seconds, 1e-9)
