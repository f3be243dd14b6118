"""How a network does on held-out pictures while it trains."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.training.device import to_input


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """Mean cross-entropy and accuracy."""

    loss: float
    accuracy: float


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
    count = 0
    for images, labels in batches:
        logits = model(to_input(images, preprocess, device))
        target = torch.from_numpy(labels).to(device)
        loss = functional.cross_entropy(logits, target, reduction="sum")
        totals += torch.stack([loss, (logits.argmax(1) == target).sum()]).double().cpu()
        count += len(labels)
    loss_sum, right = totals.tolist()
    return Validated(loss=loss_sum / count, accuracy=right / count)
