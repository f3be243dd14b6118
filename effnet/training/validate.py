"""How a network does on held-out pictures while it trains."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.training.device import to_input
from effnet.training.ranks import ALONE, Ranks

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
    ranks: Ranks = ALONE,
) -> Validated:
    """Returns how `model` does, in evaluation mode, over batches of uint8 images and their labels.

    Each process of `ranks` gives batches of its own, perhaps none; all get the result of all of them together.
    """
    model.eval()
    sums, classes = torch.zeros(3, dtype=torch.float64), 0
    pairs = torch.zeros(_CONFUSED_CLASSES**2, dtype=torch.int64)
    for images, labels in batches:
        logits = model(to_input(images, preprocess, device))
        target = torch.from_numpy(labels).to(device)
        loss = functional.cross_entropy(logits, target, reduction="sum")
        predicted, classes = logits.argmax(1), logits.shape[1]
        found = torch.stack([loss, (predicted == target).sum()]).cpu().double()
        sums += torch.cat([found, found.new_tensor([len(labels)])])
        if classes <= _CONFUSED_CLASSES:
            pairs += torch.bincount((target * classes + predicted).cpu(), minlength=len(pairs))
    ranks.meet()
    loss_sum, right, count = ranks.total(sums).tolist()
    classes = max(ranks.gather(classes))  # a process without pictures has seen none
    confusion = None
    if classes <= _CONFUSED_CLASSES:
        confusion = ranks.total(pairs)[: classes**2].reshape(classes, classes).numpy()
    return Validated(loss=loss_sum / count, accuracy=right / count, confusion=confusion)
