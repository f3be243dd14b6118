"""Learning from a teacher: any bundle whose classes are the data set's."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.runtime.config import ModelConfig, read_config
from effnet.training.losses import Batch, LossFn, binary_cross_entropy, cross_entropy, labels_loss
from effnet.training.recipe import Loss, Recipe
from effnet.weights.bundle import load_module


def make_loss(
    recipe: Recipe, *, preprocess: Preprocess, class_names: Sequence[str], device: torch.device | None = None
) -> LossFn:
    """Returns the loss of a recipe for a student that takes pictures as `preprocess` makes them.

    Raises BundleError where the teacher cannot be read, InputError where it was not taught these classes.
    """
    plan = recipe.loss
    if not plan.teacher:
        make = cross_entropy if plan.name == "cross_entropy" else binary_cross_entropy
        return make(plan.label_smoothing)
    config = read_teacher(plan.teacher, class_names=class_names, channels=preprocess.channels)
    teacher = load_module(plan.teacher).to(device, memory_format=torch.channels_last).requires_grad_(False)
    return distillation(teacher, plan, preprocess=preprocess, teacher_preprocess=config.preprocess)


def read_teacher(folder: str | os.PathLike[str], *, class_names: Sequence[str], channels: int) -> ModelConfig:
    """Returns the config of a teacher's bundle; raises InputError unless it knows these classes and channels."""
    config = read_config(folder)
    if config.class_names != tuple(class_names):
        raise InputError(
            f"the classes of the teacher must be those of the data set, in its order; {os.fspath(folder)} has "
            f"{_names(config.class_names)}, the data set {_names(class_names)}: name another loss.teacher, or train "
            "it on this data set"
        )
    if config.preprocess.channels != channels:
        raise InputError(
            f"the teacher must take as many channels as the student; {os.fspath(folder)} takes "
            f"{config.preprocess.channels}, the student {channels}: give --channels, or name another loss.teacher"
        )
    return config


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"


def distillation(teacher: nn.Module, plan: Loss, *, preprocess: Preprocess, teacher_preprocess: Preprocess) -> LossFn:
    """Returns (1 - w) * loss of the labels + w * T^2 * KL(teacher's answers at T from the student's at T).

    w is `teacher_weight`, T `temperature`; the factor T^2 keeps the size of the gradients. Both see the same pictures,
    mixed ones too; the teacher gets them as `teacher_preprocess` has them, and learns nothing. Sources: Hinton et al.
    2015, section 2; Beyer et al. 2022 (the same views for both).
    """
    teacher.eval()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.images)
        labels = labels_loss(logits, batch, name=plan.name, smoothing=plan.label_smoothing)
        with torch.no_grad():
            answers = teacher(as_input(batch.images, preprocess, teacher_preprocess))
        soft = functional.kl_div(
            functional.log_softmax(logits.float() / plan.temperature, dim=1),
            functional.log_softmax(answers.float() / plan.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return labels.lerp(plan.temperature**2 * soft, plan.teacher_weight)

    return loss


def as_input(images: Tensor, source: Preprocess, target: Preprocess) -> Tensor:
    """Returns pictures [batch, channels, R, R] that `source` normalised as `target` has them, of its resolution."""
    if (source.mean, source.std) != (target.mean, target.std):
        mean, std, other_mean, other_std = (
            torch.tensor(values, device=images.device)[:, None, None]
            for values in (source.mean, source.std, target.mean, target.std)
        )
        images = (images * std + mean - other_mean) / other_std
    if images.shape[-1] == target.resolution:
        return images
    size = (target.resolution, target.resolution)
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
