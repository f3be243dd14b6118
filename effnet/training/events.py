"""What a training run tells whoever listens."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a listener hears after a training step."""

    epoch: int
    epochs: int
    step: int
    total_steps: int
    loss: float
    val_accuracy: float | None
    images_per_second: float
    seconds_left: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What a listener hears where something is not as it should be, and training goes on all the same."""

    text: str


Listener = Callable[[Step | EpochEnd | Noted], None]
