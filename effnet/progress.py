"""Events that a training run sends to its listener."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The event after a training step.

    `val` is the figure of the last validation in words, such as "accuracy 93.21%", or empty before the first.
    `memory_mb`, in 10^6 bytes, is CUDA's peak allocated memory or, on a CPU, the resident memory of the process.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    loss: float
    val: str
    images_per_second: float
    seconds_left: float
    learning_rate: float = 0.0
    memory_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnd:
    """The event after an epoch; `epoch` counts from 1.

    `figures` are those of the task on the validation images by their keys in files, such as val_accuracy; `words` are
    the same in words.
    """

    epoch: int
    loss: float
    val_loss: float
    learning_rate: float
    seconds: float
    images_per_second: float
    figures: Mapping[str, float] = field(default_factory=dict)
    words: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the epoch as a line of metrics.jsonl."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "val_loss": self.val_loss,
            **self.figures,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A warning; training continues."""

    text: str


Listener = Callable[[Step | EpochEnd | Noted], None]


def ignore(event: object) -> None:
    """Ignore every event."""
