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
    """What a listener hears after an epoch; also a line of metrics.jsonl. `epoch` counts from 1."""

    epoch: int
    loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float


Listener = Callable[[Step | EpochEnd], None]
