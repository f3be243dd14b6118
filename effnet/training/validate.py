"""How a network does on held-out pictures while it trains."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.training.device import to_input

# The confusion matrix of more classes than these is too large to look at.
_CONFUSED_CLASSES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """How a network did: mean cross-entropy and accuracy.

    `confusion` counts pictures, int64 [true class, predicted class]; None where there are more than 100 classes.
    """

    loss: float
    accuracy: float
    confusion: np.ndarray | None


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
    device: torch.device,
) -> Validated:
    """Returns how `model` does, in evaluation mode, over batches of uint8 images and their labels."""
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64)
    count, confusion = 0, None
    for images, labels in batches:
        logits = model(to_input(images, preprocess, device))
        target = torch.from_numpy(labels).to(device)
        loss = functional.cross_entropy(logits, target, reduction="sum")
        predicted = logits.argmax(1)
        totals += torch.stack([loss, (predicted == target).sum()]).cpu().double()
        count += len(labels)
        classes = logits.shape[1]
        if classes <= _CONFUSED_CLASSES:
            pairs = np.bincount(labels * classes + predicted.cpu().numpy(), minlength=classes**2)
            confusion = pairs if confusion is None else confusion + pairs
    loss_sum, right = totals.tolist()
    if confusion is not None:
        confusion = confusion.reshape(classes, classes)
    return Validated(loss=loss_sum / count, accuracy=right / count, confusion=confusion)
