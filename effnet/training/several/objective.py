"""The loss of several outputs: the weighted sum of theirs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from effnet.data.datasets import Dataset
from effnet.data.several.outputs import OutputSpec, Placed, placed
from effnet.errors import InputError, nearest
from effnet.training.distill import soft_cross_entropy
from effnet.training.losses import Batch
from effnet.training.recipe.balance import logit_offset
from effnet.training.recipe.schema import Recipe, TagLoss

# Ridnik et al. 2021 (arXiv 2009.14119), section 2: eq. 5 with the defaults of the authors' code.
_ASL_GAMMA, _ASL_MARGIN = 4.0, 0.05
_LEAST = 1e-8


def output_weights(text: str, names: Sequence[str]) -> tuple[float, ...]:
    """Return the weight of each output in the loss, from a text such as "gender=2,year=0.5"; raise InputError."""
    found = dict.fromkeys(names, 1.0)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.rpartition("=")
        if name not in found:
            raise InputError(
                f"loss.weights must name outputs ({', '.join(names)}), as in {names[0]}=2; got {part!r}"
                f"{nearest(name, names)}"
            )
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not (math.isfinite(found[name]) and found[name] >= 0):
            raise InputError(f"a weight in loss.weights must be a number of at least 0; got {part!r}")
    if not any(found.values()):
        raise InputError("an output must have a weight above 0 in loss.weights; all are 0")
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objective:
    """What the loss needs of each output: its place, its weight, and the share of training images that know it.

    `offset` [columns], 0 except for balanced classes, is added to the network's values in training only.
    """

    places: tuple[Placed, ...]
    weights: tuple[float, ...]
    known: tuple[float, ...]
    smoothing: float = 0.0
    tags: TagLoss = "bce"
    offset: Tensor | None = None

    def __call__(self, values: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the outputs' losses, means over the images that know them.

        Each is a negative log-likelihood in nats: the cross-entropy of classes, the mean cross-entropy of the tags, and
        half the squared error over the variance of a number. They are not divided by log K, which would leave an output
        of many classes the smallest share of the gradient. A batch may be divided at will: the mean is over the share
        of images that know an output in training, not in the batch.
        """
        values = values.float() if self.offset is None else values.float() + self.offset
        total = values.new_zeros(())
        for place, weight, known in zip(self.places, self.weights, self.known, strict=True):
            losses = _losses(values[:, place.columns], batch, place, smoothing=self.smoothing, tags=self.tags)
            total = total + weight / max(known, _LEAST) * losses.sum() / len(values)
        return total


def _losses(values: Tensor, batch: Batch, place: Placed, *, smoothing: float, tags: TagLoss) -> Tensor:
    """Return the loss of one output for each image, [batch]; 0 if the target is unknown."""
    own = _shown(batch.labels[:, place.targets], place.spec)
    known = ~own.isnan().any(1)
    target = own
    if batch.mixed is not None:
        other = _shown(batch.mixed.partner[:, place.targets], place.spec)
        known &= ~other.isnan().any(1)
        target = other.lerp(own, batch.mixed.weight.to(own.dtype)[:, None])
    target = torch.where(known[:, None], target, torch.zeros_like(target))
    spec = place.spec
    if spec.kind == "one":
        target = target * (1 - smoothing) + smoothing / spec.width
        losses = -(target * functional.log_softmax(values, dim=1)).sum(1)
    elif spec.kind == "many":
        target = target * (1 - smoothing) + smoothing / 2
        losses = _of_tags(values, target, tags).mean(1)
    else:
        losses = (values - target).square().sum(1) / 2
    return torch.where(known, losses, torch.zeros_like(losses))


def _shown(targets: Tensor, spec: OutputSpec) -> Tensor:
    """Return targets as the network sees them, float32 [batch, columns]: shares of classes, tags, standard scores."""
    if spec.kind == "number":  # in float64: a large number may differ by little
        return ((targets - spec.mean) / spec.scale).float()
    if spec.kind == "many":
        return targets.float()
    unknown = targets.isnan()
    shares = functional.one_hot(targets.nan_to_num(0.0).long()[:, 0], spec.width).float()
    return shares.masked_fill(unknown, math.nan)


def _of_tags(values: Tensor, targets: Tensor, name: TagLoss) -> Tensor:
    """Return the loss of each tag, [batch, tags], for shares `targets`."""
    if name == "bce":
        return functional.binary_cross_entropy_with_logits(values, targets, reduction="none")
    return asymmetric_loss(values, targets)


def asymmetric_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Return the asymmetric loss of each tag, with gamma+ 0, gamma- 4 and a margin of 0.05: [batch, tags].

    Source: Ridnik et al. 2021, "Asymmetric loss for multi-label classification", eq. 5 to 7.
    """
    shifted = (values.sigmoid() - _ASL_MARGIN).clamp_min(0)
    absent = -(shifted**_ASL_GAMMA) * torch.log((1 - shifted).clamp_min(_LEAST))
    return -targets * functional.logsigmoid(values) + (1 - targets) * absent


def objective_of(dataset: Dataset, recipe: Recipe, *, device: torch.device | None) -> Objective:
    """Return the loss of the labels of a recipe."""
    specs, targets = dataset.specs, dataset.train.labels
    places = tuple(placed(specs))
    offset = None
    if recipe.balance.method == "adjust":
        offset = torch.tensor(
            class_offset(specs, targets, strength=recipe.balance.strength, smoothing=recipe.loss.label_smoothing),
            dtype=torch.float32,
            device=device,
        )
    return Objective(
        places=places,
        weights=output_weights(recipe.loss.weights, [spec.name for spec in specs]),
        known=tuple(float((~np.isnan(targets[:, place.targets]).any(1)).mean()) for place in places),
        smoothing=recipe.loss.label_smoothing,
        tags=recipe.loss.tags,
        offset=offset,
    )


def class_offset(
    specs: Sequence[OutputSpec], targets: np.ndarray, *, strength: float, smoothing: float = 0.0
) -> np.ndarray:
    """Return the logit offset of the classes of each output of classes, 0 for other columns: float64 [columns]."""
    offset = np.zeros(sum(spec.width for spec in specs))
    for place in placed(specs):
        if place.spec.kind == "one":
            labels = targets[:, place.targets][:, 0]
            labels = labels[~np.isnan(labels)].astype(np.int64)
            offset[place.columns] = logit_offset(
                labels, num_classes=place.spec.width, strength=strength, smoothing=smoothing
            )
    return offset


def soft_loss(
    values: Tensor,
    answers: Tensor,
    *,
    objective: Objective,
    temperature: float,
    teacher: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """Return the loss of a student's values against its teacher's, [batch, columns].

    That of classes is soft_cross_entropy, of tags the cross-entropy of each with the teacher's probability, of numbers
    half the squared difference; `teacher` gives the numbers that the teacher's values mean.
    """
    total = values.new_zeros(())
    for place, weight, number in zip(objective.places, objective.weights, teacher, strict=True):
        own, theirs, spec = values[:, place.columns].float(), answers[:, place.columns].float(), place.spec
        if spec.kind == "one":
            loss = soft_cross_entropy(own, theirs, temperature=temperature)
        elif spec.kind == "many":
            loss = functional.binary_cross_entropy_with_logits(own, theirs.sigmoid())
        else:
            loss = (own - ((number(theirs) - spec.mean) / spec.scale).float()).square().mean() / 2
        total = total + weight * loss
    return total
