"""FreeMatch: a network learns its own answers to unlabelled images, from confidences on that it adapts itself.

The answer to a weak view of an image, its crop and flip, is what the network shall answer to a strong one, the same
pixels after RandAugment. Source: Wang et al. 2023, "FreeMatch: Self-adaptive thresholding for semi-supervised learning"
(arXiv 2205.07246). There a strong view has a crop of its own; with the same crop the answer holds for what is shown.
"""

import dataclasses
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.training.device import normalized, pixels_of
from effnet.training.distributed.ranks import Ranks
from effnet.training.input.augment import augment_batch
from effnet.training.input.batches import num_batches
from effnet.training.losses import Batch, LossFn, make_terms
from effnet.training.recipe.augment import Augment
from effnet.training.recipe.schema import Recipe
from effnet.training.unlabelled.student import soft_labels_loss

# The weight of the fairness loss; that of the unlabelled images' is 1. Source: the official code's default.
_FAIRNESS = 0.01
# The thresholds average over this share of the steps, and at least and at most so many. The paper's decay of 0.999, for
# 2^20 steps, is an average over 1,000: in runs of hundreds the thresholds would stay near 1 / classes, which all pass.
_MEMORY, _LEAST_MEMORY, _MOST_MEMORY = 0.1, 10, 1000
# What the recipe of FreeMatch cannot have, and what it has instead.
_WITHOUT = {
    "augment.mixup": 0.0, "augment.cutmix": 0.0, "augment.adversarial": 0.0, "train.micro_batch": 0,
    "loss.name": "cross_entropy",
}  # fmt: skip
_ATTRIBUTE = "thresholds"


class Thresholds(nn.Module):
    """The least confidences of the classes, as buffers of the network in training: so checkpoints hold them.

    `level` is that of all classes (eq. 5), `shares` [classes] the mean probabilities (eq. 6), `histogram` [classes] the
    shares of the answers (eq. 10); all averages over steps that keep the share `keep`, and begin with 1 / classes.
    `passed` [classes] and `seen` count weak views since the start of an epoch, of `batches` steps.
    """

    level: Tensor
    shares: Tensor
    histogram: Tensor
    passed: Tensor
    seen: Tensor
    step: Tensor

    def __init__(self, classes: int, *, keep: float, batches: int) -> None:
        super().__init__()
        self.keep, self.batches = keep, batches
        self.register_buffer("level", torch.tensor(1 / classes))
        for name in ("shares", "histogram"):
            self.register_buffer(name, torch.full((classes,), 1 / classes))
        self.register_buffer("passed", torch.zeros(classes, dtype=torch.int64))
        for name in ("seen", "step"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @property
    def of_classes(self) -> Tensor:
        """The threshold of each class, [classes] (eq. 7)."""
        return self.shares / self.shares.max() * self.level

    def passing(self, probabilities: Tensor) -> Tensor:
        """Return which rows of `probabilities` [images, classes] are at least as confident as their class needs."""
        confidences, answers = probabilities.max(1)
        return confidences >= self.of_classes[answers]

    @torch.no_grad()
    def move_(self, probabilities: Tensor) -> None:
        """Move the averages by a step's answers to weak views, [images, classes]; none of them move nothing."""
        if not len(probabilities):
            return
        confidences, answers = probabilities.max(1)
        shares = torch.bincount(answers, minlength=len(self.histogram)) / len(answers)
        self.level.lerp_(confidences.mean(), 1 - self.keep)
        self.shares.lerp_(probabilities.mean(0), 1 - self.keep)
        self.histogram.lerp_(shares.to(self.histogram), 1 - self.keep)

    @torch.no_grad()
    def count_(self, answers: Tensor, passing: Tensor) -> None:
        """Count the weak views of a step, whose classes are `answers` [images]."""
        if int(self.step) % self.batches == 0:
            self.passed.zero_()
            self.seen.zero_()
        self.step += 1
        self.seen += len(answers)
        self.passed += torch.bincount(answers[passing], minlength=len(self.passed))


def kept_over(steps: int) -> float:
    """Return the share that the thresholds of a run of `steps` keep at each: 0.999 from 10,000 steps on."""
    return 1 - 1 / min(_MOST_MEMORY, max(_LEAST_MEMORY, _MEMORY * steps))


def unlabelled_loss(logits: Tensor, answers: Tensor, passing: Tensor) -> Tensor:
    """Return the loss of strong views, `logits` [images, classes], against the `answers` to weak ones (eq. 8).

    It is the mean over all images of the cross-entropies of the passing ones; 0 if none passes.
    """
    losses = functional.cross_entropy(logits, answers, reduction="none")
    return torch.where(passing, losses, 0).sum() / max(1, len(losses))


def fairness_loss(logits: Tensor, passing: Tensor, *, shares: Tensor, histogram: Tensor) -> Tensor:
    """Return minus the cross-entropy of mean probabilities, each over the share of the answers (eq. 9 and 11).

    `shares` and `histogram` [classes] are the averages over steps, the others those of the `passing` strong views,
    `logits` [images, classes]. A class that none of them is answered with has no slope, and is left out; 0 if none
    passes.
    """
    if not passing.any():
        return logits.sum() * 0
    found = torch.softmax(logits[passing], 1)
    answered = torch.bincount(found.argmax(1), minlength=logits.shape[1]) / len(found)
    present = answered > 0
    wanted = _sum_to_one(shares / histogram.clamp_min(1e-12))[present]
    ratios = _sum_to_one(found.mean(0)[present] / answered[present])
    return (wanted * torch.log(ratios)).sum()


def _sum_to_one(values: Tensor) -> Tensor:
    return values / values.sum()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreeMatchLoss:
    """Makes the loss of a recipe on labelled and unlabelled images; the rows of the second, soft labels, are 0.

    `labels` are the classes of the labelled images, which balancing needs. The network must have been given
    `Thresholds` by `with_thresholds_`.
    """

    recipe: Recipe
    preprocess: Preprocess
    labels: np.ndarray
    num_classes: int

    def __call__(self, ranks: Ranks) -> LossFn:
        """Return the loss of the only process; raise InputError if there are several."""
        if ranks.size > 1:
            raise InputError(f"freematch trains in one process; got {ranks.size}: start effnet without torchrun")
        terms = make_terms(self.recipe, self.labels, num_classes=self.num_classes, device=ranks.device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            rows = batch.labels.float()
            known = rows.sum(1) > 0
            images = batch.images.clone()
            images[~known] = strong_views(images[~known], self.recipe.augment, self.preprocess)
            thresholds = cast(Thresholds, getattr(model, _ATTRIBUTE))
            with torch.no_grad():
                weak = torch.softmax(model(batch.images)[~known].float(), 1)
                thresholds.move_(weak)
                answers, passing = weak.argmax(1), thresholds.passing(weak)
                thresholds.count_(answers, passing)
            logits = model(images).float()
            own = soft_labels_loss(logits[known], rows[known], self.recipe, terms) if known.any() else 0
            others = logits[~known]
            fairness = fairness_loss(others, passing, shares=thresholds.shares, histogram=thresholds.histogram)
            return own + unlabelled_loss(others, answers, passing) + _FAIRNESS * fairness

        return loss


def strong_views(images: Tensor, augment: Augment, preprocess: Preprocess) -> Tensor:
    """Return normalised images after the policy of `augment`, drawn from torch's generator."""
    seed = int(torch.randint(2**31, ()))
    if not len(images):
        return images
    only = Augment(policy=augment.policy, num_ops=augment.num_ops, magnitude=augment.magnitude,
                   magnitude_std=augment.magnitude_std)  # fmt: skip
    pixels = augment_batch(pixels_of(images, preprocess), only, mean=preprocess.mean, seed=seed, step=0)
    return normalized(pixels, preprocess)


def with_thresholds_(network: nn.Module, recipe: Recipe, *, images: int, classes: int) -> None:
    """Give a network thresholds for a run on this number of labelled and unlabelled images."""
    batches = num_batches(images, recipe.train.batch_size)
    made = Thresholds(classes, keep=kept_over(recipe.train.epochs * batches), batches=batches)
    network.add_module(_ATTRIBUTE, made)


def without_thresholds_(network: nn.Module) -> Thresholds:
    """Remove the thresholds of a network, and return them."""
    found = cast(Thresholds, getattr(network, _ATTRIBUTE))
    delattr(network, _ATTRIBUTE)
    return found


def freematch_recipe(recipe: Recipe, *, epochs: int) -> Recipe:
    """Return the recipe of FreeMatch; its policy, RandAugment of two operations, is that of the strong views alone.

    Nothing else is random: no dropout, no stochastic depth, no smoothing. The last epoch's weights count, as the
    validation images judge them once.
    """
    train = dataclasses.replace(
        recipe.train, epochs=epochs, patience=0, start_counts=False, last_counts=True, micro_batch=0
    )
    return dataclasses.replace(
        recipe,
        name="freematch",
        train=train,
        model=dataclasses.replace(recipe.model, dropout=0.0, drop_path=0.0),
        augment=dataclasses.replace(
            recipe.augment, policy="randaugment", num_ops=2, mixup=0.0, cutmix=0.0, adversarial=0.0
        ),
        loss=dataclasses.replace(
            recipe.loss, name="cross_entropy", label_smoothing=0.0, teacher="", teacher_views=0, feature_weight=0.0
        ),
    )


def weak_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe by which batches are made: without the policy, which the loss applies to strong views."""
    return dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, policy="none"))


def unsuited(name: str, value: object) -> bool:
    """Return whether FreeMatch cannot have this value of a recipe's field, by its dotted name."""
    return name in _WITHOUT and value not in (None, _WITHOUT[name])
