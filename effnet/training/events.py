"""What a training run tells whoever listens."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a listener hears after a training step.

    `memory_mb`, in 10^6 bytes, is the most that CUDA has allocated or, on a CPU, what the process holds now.
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
    """What a listener hears after an epoch; also a line of metrics.jsonl. `epoch` counts from 1.

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
    """What a listener hears where something is not as it should be, and training goes on all the same."""

    text: str


Listener = Callable[[Step | EpochEnd | Noted], None]
