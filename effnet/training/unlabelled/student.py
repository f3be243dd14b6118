"""The student of a teacher's pseudo-labels: its images, its loss, and the noise that it is trained with."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.datasets import Dataset, Split
from effnet.data.sources.source import Source
from effnet.training.distributed.ranks import Ranks
from effnet.training.losses import ALIKE, Batch, LossFn, Terms, focal_loss, make_terms
from effnet.training.recipe.schema import Recipe
from effnet.training.unlabelled.pseudo import PseudoLabels

RATIO = 3
"""Unlabelled images for each labelled one, at most."""


def student_set(
    dataset: Dataset, unlabelled: Sequence[Source], pseudo: PseudoLabels, *, smoothing: float, seed: int
) -> Dataset:
    """Return the data set of a student: its training labels are soft, float32 [images, classes].

    A row holds the smoothed class of an image, times 1 if it is labelled and times the confidence of a pseudo-label:
    its sum is the weight of the image. An epoch has every pseudo-label once, and a labelled image for `RATIO` of them:
    each as often as the others, plus or minus one, at least once.
    """
    train, classes = dataset.train, len(dataset.class_names)
    rng = np.random.default_rng([seed, len(train), len(pseudo.classes)])
    wanted = max(len(train), -(-len(pseudo.classes) // RATIO))
    turns = [rng.permutation(len(train)) for _ in range(-(-wanted // len(train)))]
    own = np.concatenate(turns)[:wanted]
    labels = np.concatenate([train.labels[own], pseudo.classes])
    weights = np.concatenate([np.ones(len(own), np.float32), pseudo.confidences])
    rows = np.full((len(labels), classes), smoothing / classes, np.float32)
    rows[np.arange(len(labels)), labels] += 1 - smoothing
    sources = [*(train.sources[index] for index in own), *(unlabelled[index] for index in pseudo.indices)]
    return dataclasses.replace(dataset, train=Split(sources=sources, labels=rows * weights[:, None]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentLoss:
    """Makes the loss of a recipe on soft labels; `labels` are the classes of training, which balancing needs."""

    recipe: Recipe
    labels: np.ndarray
    num_classes: int

    def __call__(self, ranks: Ranks) -> LossFn:
        """Return the loss of this process."""
        terms = make_terms(self.recipe, self.labels, num_classes=self.num_classes, device=ranks.device)
        return soft_labels(self.recipe, terms)


def soft_labels(recipe: Recipe, terms: Terms = ALIKE) -> LossFn:
    """Return the loss of a recipe on labels that are soft, [batch, classes], and weigh an image by their sum.

    It is the mean over the images of weight * loss(class probabilities), so that a batch may be split at will. With
    hard classes and weights of 1 it equals the losses of effnet.training.losses.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits, rows = model(batch.images).float(), batch.labels.float()
        if batch.mixed is not None:
            rows = batch.mixed.partner.float().lerp(rows, batch.mixed.weight.to(rows.dtype)[:, None])
        return soft_labels_loss(logits, rows, recipe, terms)

    return loss


def soft_labels_loss(logits: Tensor, rows: Tensor, recipe: Recipe, terms: Terms = ALIKE) -> Tensor:
    """Return the same of logits and soft labels, float32 [batch, classes] each."""
    if recipe.loss.name == "bce":
        weights = rows.sum(1)
        targets = rows / weights.clamp_min(1e-12)[:, None]
        each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        return (weights * each).mean()
    if terms.offset is not None:
        logits = logits + terms.offset.to(logits.device)
    factors = None if terms.weights is None else terms.weights.to(logits.device)
    if terms.gamma:
        return focal_loss(logits, rows, gamma=terms.gamma, weights=factors)
    rows = rows if factors is None else rows * factors
    return -(rows * torch.log_softmax(logits, dim=1)).sum(1).mean()


def noisy_recipe(recipe: Recipe, *, epochs: int) -> Recipe:
    """Return the recipe of a student: the noise of Noisy Student for fine-tuning, and the last epoch's weights.

    RandAugment of two operations, dropout of 0.2 and stochastic depth of 0.1. The validation images choose no epoch:
    they judge the student once.
    """
    return dataclasses.replace(
        recipe,
        name="noisy_student",
        train=dataclasses.replace(recipe.train, epochs=epochs, patience=0, start_counts=False, last_counts=True),
        model=dataclasses.replace(recipe.model, dropout=0.2, drop_path=0.1),
        augment=dataclasses.replace(recipe.augment, policy="randaugment", num_ops=2),
        loss=dataclasses.replace(recipe.loss, teacher="", teacher_views=0, feature_weight=0.0),
    )


def labelled_recipe(recipe: Recipe, *, epochs: int, rate: float = 0.1) -> Recipe:
    """Return the recipe of a student's last epochs, on labelled images without a policy, at `rate` of the peak rate.

    Source: Xie et al. 2020, section 3.1, ends with epochs on unaugmented labelled images (there at a larger
    resolution, Touvron et al. 2019).
    """
    return dataclasses.replace(
        recipe,
        name="noisy_student_labelled",
        train=dataclasses.replace(recipe.train, epochs=epochs, lr=rate * recipe.train.lr),
        augment=dataclasses.replace(recipe.augment, policy="none", mixup=0.0, cutmix=0.0),
    )
