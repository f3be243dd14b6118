"""Training of classifiers: checks of the data, the loss, and validation on held-out images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError
from effnet.measurement.classification.calibration import Abstain, Calibration, calibrate
from effnet.nn.network import Network
from effnet.system.text import both
from effnet.training.device import to_input
from effnet.training.distill import make_loss
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.learning import OwnHead
from effnet.training.log.figures import confusion_image
from effnet.training.losses import LossFn
from effnet.training.recipe.balance import held_out_weights
from effnet.training.recipe.schema import Balance, Recipe
from effnet.training.transfer.head import Head, known_head, train_head

# The confusion matrix of more classes than this is too large to look at.
_CONFUSED_CLASSES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassesValidated:
    """The validation result: mean cross-entropy and accuracy, and the same with each class counting alike.

    `confusion` counts images, int64 [true class, predicted class]; None if there are more than 100 classes.
    """

    loss: float
    accuracy: float
    confusion: np.ndarray | None
    balanced_loss: float = float("nan")
    balanced_accuracy: float = float("nan")

    @property
    def figures(self) -> Mapping[str, float]:
        """The accuracy and the balanced accuracy, as in metrics.jsonl."""
        return {"val_accuracy": self.accuracy, "val_balanced_accuracy": self.balanced_accuracy}

    @property
    def words(self) -> str:
        """The accuracy in words."""
        return f"accuracy {both(self.accuracy, self.balanced_accuracy)}"

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return an image of the confusion matrix, if there is one."""
        return {} if self.confusion is None else {"confusion": confusion_image(self.confusion, names)}

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a better network: accuracy, then minus the loss; balanced if requested."""
        if recipe.balance.removed:
            return self.balanced_accuracy, -self.balanced_loss
        return self.accuracy, -self.loss


def check(model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return warnings about the classes of a run; raise DataError if they do not fit the network or have no images."""
    classes = len(dataset.class_names)
    if isinstance(model, Network) and model.spec.num_classes != classes:
        raise DataError(
            f"the network must have as many outputs as the data set has classes, {classes}; "
            f"it has {model.spec.num_classes}: build it with num_classes={classes}"
        )
    for name in ("train", "val"):
        labels = hard_labels(getattr(dataset, name).labels)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(f"labels in {name} must lie in 0..{classes - 1}; found {labels.min()} to {labels.max()}")
    absent = _absent(dataset, hard_labels(dataset.train.labels))
    if absent:
        raise DataError(f"every class must have images in train, but these have none there: {absent}")
    unseen = _absent(dataset, dataset.val.labels) if len(dataset.val) else ""
    return [f"Validation has no images of these classes and cannot assess them: {unseen}"] if unseen else []


def hard_labels(labels: np.ndarray) -> np.ndarray:
    """Return the class of each image, int64 [images], of classes or of soft labels [images, classes]."""
    return labels if labels.ndim == 1 else labels.argmax(1)


def _absent(dataset: Dataset, labels: np.ndarray) -> str:
    present = set(np.unique(labels).tolist())
    return ", ".join(name for number, name in enumerate(dataset.class_names) if number not in present)


def loss_of(dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None) -> LossFn:
    """Return the loss of a recipe; see `effnet.training.distill.make_loss`."""
    return make_loss(
        recipe,
        preprocess=preprocess,
        class_names=dataset.class_names,
        labels=dataset.train.labels,
        device=device,
    )


def fit_head(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    dataset: Dataset,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    balance: Balance,
    own: OwnHead | None,
) -> Head:
    """Return the head trained on features, or the weights' `own`, which was trained on these classes, if it is better.

    See effnet.training.transfer.head.
    """
    head = train_head(
        features,
        targets,
        num_classes=len(dataset.class_names),
        val_features=val_features,
        val_labels=val_targets,
        balance=balance,
    )
    if own is None:
        return head
    before = known_head(
        own.weight, own.bias, val_features, val_targets, train_labels=dataset.train.labels, balance=balance,
        removed=own.removed,
    )  # fmt: skip
    return max(before, head, key=lambda found: found.score(balance))


def calibrated(
    config: ModelConfig, rows: np.ndarray, targets: np.ndarray, *, dataset: Dataset, abstain: Abstain
) -> tuple[ModelConfig, Calibration]:
    """Return the config with temperature and threshold, from probabilities at temperature 1 of validation images."""
    weights = held_out_weights(
        targets, train_labels=dataset.train.labels, num_classes=len(config.class_names), removed=config.balanced
    )
    found = calibrate(rows, targets, abstain, weights=weights, costs=config.costs)
    return replace(config, temperature=found.temperature, threshold=found.threshold), found


def guessed_loss(dataset: Dataset) -> float:
    """Return the cross-entropy of uniform guesses."""
    return math.log(max(2, len(dataset.class_names)))


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> ClassesValidated:
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
    return ClassesValidated(
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
