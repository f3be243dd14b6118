"""Events that a training run sends to its listener."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The event after a training step.

    `memory_mb`, in 10^6 bytes, is CUDA's peak allocated memory or, on a CPU, the resident memory of the process.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    loss: float
    val_accuracy: float | None
    images_per_second: float
    seconds_left: float
    learning_rate: float = 0.0
    memory_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnd:
    """The event after an epoch; also a line of metrics.jsonl. `epoch` counts from 1.

    `val_balanced_accuracy` is the mean recall of the classes in validation.
    """

    epoch: int
    loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    val_balanced_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A warning; training continues."""

    text: str


Listener = Callable[[Step | EpochEnd | Noted], None]


def ignore(event: object) -> None:
    """Ignore every event."""
