"""Where a run stands, and whether it has lost its way."""

import math
from dataclasses import dataclass, field
from typing import Any

from effnet.training.recipe import Recipe

# Uniform guesses are the worst that a network begins with; a loss so many times theirs, for so many steps on end, is
# no noise and no warm-up.
_EXPLODED, _HIGH_STEPS = 10.0, 200


@dataclass(kw_only=True)
class Position:
    """`batch` batches of epoch `epoch` (from 0) are done, `step` in all.

    `epochs` are those that were asked for, 0 if an older effnet began. `processes` is how many train. `first_loss` is
    the first step's; `high_steps` counts the latest steps on end whose loss was many times as high.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = -1
    best_score: tuple[float, float] = (-1.0, float("-inf"))
    last_better: int = -1
    first_loss: float = 0.0
    high_steps: int = 0
    finished: str = ""
    epochs: int = 0
    processes: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, loss: float, *, images: int, seconds: float) -> None:
        """Count a step that is done."""
        if self.step == 0:
            self.first_loss = loss
        self.batch += 1
        self.step += 1
        self.loss_sum += loss * images
        self.images += images
        self.spend(seconds)

    def spend(self, seconds: float) -> None:
        """Count time of training."""
        self.seconds += seconds
        self.epoch_seconds += seconds

    def watch(self, loss: float, *, num_classes: int) -> bool:
        """Return whether the loss has stayed far above that of guessing for so long that training is lost."""
        bound = _EXPLODED * max(self.first_loss, math.log(max(2, num_classes)))
        self.high_steps = self.high_steps + 1 if loss > bound else 0
        return self.high_steps >= _HIGH_STEPS

    def extend(self, epochs: int) -> bool:
        """Take note of how many epochs are asked for; returns whether they are more than before, and it goes on."""
        more = 0 < (self.epochs or (self.epoch if self.finished else 0)) < epochs
        if more:
            self.finished = ""
        self.epochs = epochs
        return more

    def next_epoch(self) -> None:
        """Count an epoch that is done."""
        self.epoch += 1
        self.batch, self.loss_sum, self.images, self.epoch_seconds = 0, 0.0, 0, 0.0

    def verdict(self, recipe: Recipe, deadline_seconds: float | None) -> str:
        """Return why training is over, or an empty text."""
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
        """The speed of this epoch's training."""
        return self.images / max(self.epoch_seconds, 1e-9)
