"""Validation of a network on held-out images during training."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.training.device import to_input
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.recipe.schema import Recipe

# The confusion matrix of more classes than this is too large to look at.
_CONFUSED_CLASSES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """The validation result: mean cross-entropy and accuracy, and the same with each class counting alike.

    `confusion` counts images, int64 [true class, predicted class]; None if there are more than 100 classes.
    """

    loss: float
    accuracy: float
    confusion: np.ndarray | None
    balanced_loss: float = float("nan")
    balanced_accuracy: float = float("nan")

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a better network: accuracy, then minus the loss; balanced if requested."""
        if recipe.balance.removed:
            return self.balanced_accuracy, -self.balanced_loss
        return self.accuracy, -self.loss


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Validated:
    """Return the result of `model`, in evaluation mode, on batches of uint8 images and their labels.

    Each process of `ranks` gives batches of its own, perhaps none; all get the joint result.
    """
    model.eval()
    sums, classes = torch.zeros(3, dtype=torch.float64), 0
    rows: list[Tensor] = []  # per batch: labels, losses and correctness of its images
    pairs = torch.zeros(_CONFUSED_CLASSES**2, dtype=torch.int64)
    for images, labels in batches:
        logits = model(to_input(images, preprocess, device))
        target = torch.from_numpy(labels).to(device)
        loss = functional.cross_entropy(logits, target, reduction="sum")
        predicted, classes = logits.argmax(1), logits.shape[1]
        found = torch.stack([loss, (predicted == target).sum()]).cpu().double()
        sums += torch.cat([found, found.new_tensor([len(labels)])])
        losses = functional.cross_entropy(logits, target, reduction="none")
        rows.append(torch.stack([target.float(), losses.float(), (predicted == target).float()]).cpu().double())
        if classes <= _CONFUSED_CLASSES:
            pairs += torch.bincount((target * classes + predicted).cpu(), minlength=len(pairs))
    ranks.meet()
    loss_sum, right, count = ranks.total(sums).tolist()
    classes = max(ranks.gather(classes))  # a process without images has seen none
    confusion = None
    if classes <= _CONFUSED_CLASSES:
        confusion = ranks.total(pairs)[: classes**2].reshape(classes, classes).numpy()
    balanced_loss, balanced_accuracy = _by_class(rows, classes, ranks)
    return Validated(
        loss=loss_sum / count,
        accuracy=right / count,
        confusion=confusion,
        balanced_loss=balanced_loss,
        balanced_accuracy=balanced_accuracy,
    )


def _by_class(rows: list[Tensor], classes: int, ranks: Ranks) -> tuple[float, float]:
    """Return the means, over the classes that have images, of their mean loss and of their recall."""
    labels, losses, right = torch.cat([torch.zeros(3, 0, dtype=torch.float64), *rows], dim=1)
    weights = (losses, right, torch.ones_like(right))
    sums = torch.stack([torch.bincount(labels.long(), weight, minlength=classes) for weight in weights])
    loss_sum, right_sum, count = ranks.total(sums)
    present = count > 0
    means = (torch.stack([loss_sum, right_sum]) / count)[:, present].mean(1)
    return tuple(means.tolist())
