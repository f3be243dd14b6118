"""Learning from a teacher: any bundle whose classes are the data set's."""

import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.nn.network import Network
from effnet.runtime.config import ModelConfig, read_config
from effnet.training.balance import logit_offset
from effnet.training.losses import (
    ALIKE,
    Batch,
    LossFn,
    Terms,
    binary_cross_entropy,
    cross_entropy,
    labels_loss,
    make_terms,
)
from effnet.training.recipe import Augment, Loss, Recipe
from effnet.weights.bundle import load_module


def make_loss(
    recipe: Recipe,
    *,
    preprocess: Preprocess,
    class_names: Sequence[str],
    labels: np.ndarray | None = None,
    device: torch.device | None = None,
) -> LossFn:
    """Return the loss of a recipe for a student that takes images as `preprocess` makes them.

    int64 `labels` [images] are those of training; only a recipe that balances classes needs them.

    Raises BundleError where the teacher cannot be read, InputError where it was not taught these classes, or where
    its answers cannot be kept as the recipe asks.
    """
    plan, number = recipe.loss, len(class_names)
    labels = np.empty(0, np.int64) if labels is None else labels
    terms = make_terms(recipe, labels, num_classes=number, device=device)
    if not plan.teacher:
        if plan.name == "bce":
            return binary_cross_entropy(plan.label_smoothing)
        return cross_entropy(plan.label_smoothing, terms)
    _check_kept(recipe)
    config = read_teacher(plan.teacher, class_names=class_names, channels=preprocess.channels)
    teacher = load_module(plan.teacher).to(device, memory_format=torch.channels_last).requires_grad_(False)
    shift = None
    if missing := recipe.balance.removed - config.balanced:
        offset = logit_offset(labels, num_classes=number, strength=missing)
        shift = torch.tensor(offset, dtype=torch.float32, device=device)
    return distillation(
        teacher, plan, preprocess=preprocess, teacher_preprocess=config.preprocess, terms=terms, shift=shift
    )


def read_teacher(folder: str | os.PathLike[str], *, class_names: Sequence[str], channels: int) -> ModelConfig:
    """Return the config of a teacher's bundle; raises InputError unless it knows these classes and channels."""
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


def _check_kept(recipe: Recipe) -> None:
    """Raise InputError where loss.teacher_views asks for what cannot be kept."""
    if not recipe.loss.teacher_views:
        return
    if recipe.loss.feature_weight:
        raise InputError(
            "loss.teacher_views keeps answers and no maps, which loss.feature_weight needs; set one of them"
        )
    plain, plan = Augment(), recipe.augment
    names = ("policy", "rotation", "jitter", "erasing", "mixup", "cutmix")
    fresh = [f"augment.{name}" for name in names if getattr(plan, name) != getattr(plain, name)]
    fresh += [f"stages.{name}" for name in ("mixup", "cutmix") if any(getattr(stage, name) for stage in recipe.stages)]
    if fresh:
        verb = "draws" if len(fresh) == 1 else "draw"
        raise InputError(
            f"loss.teacher_views needs views that come back; {', '.join(fresh)} {verb} anew at every step: "
            "turn it off, or set loss.teacher_views 0"
        )


def distillation(
    teacher: nn.Module,
    plan: Loss,
    *,
    preprocess: Preprocess,
    teacher_preprocess: Preprocess,
    terms: Terms = ALIKE,
    shift: Tensor | None = None,
) -> LossFn:
    """Return (1 - w) * loss of the labels + w * T^2 * KL(teacher's answers at T from the student's at T) + f * looks.

    w is `teacher_weight`, T `temperature`, f `feature_weight`; the factor T^2 keeps the size of the gradients, and
    looks is attention_loss, left out where f is 0. Both see the same images, mixed ones too; the teacher gets them as
    `teacher_preprocess` has them, and learns nothing. Sources: Hinton et al. 2015, section 2; Beyer et al. 2022 (the
    same views for both). `terms` are those of the labels' loss; `shift` [classes] is what the teacher's logits have too
    much of the class frequencies, beside the student's. Raises InputError where maps are asked of what is no Network.
    """
    teacher.eval()
    ask = keeping_answers(teacher) if plan.teacher_views else teacher

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        shown = as_input(batch.images, preprocess, teacher_preprocess)
        looks = batch.images.new_zeros(())
        if plan.feature_weight:
            maps, logits = _network(model).maps_and_logits(batch.images)
            with torch.no_grad():
                taught, answers = _network(teacher).maps_and_logits(shown)
            looks = plan.feature_weight * attention_loss(maps, taught)
        else:
            logits = model(batch.images)
            with torch.no_grad():
                answers = ask(shown)
        answers = answers if shift is None else answers - shift
        labels = labels_loss(logits, batch, name=plan.name, smoothing=plan.label_smoothing, terms=terms)
        soft = functional.kl_div(
            functional.log_softmax(logits.float() / plan.temperature, dim=1),
            functional.log_softmax(answers.float() / plan.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return labels.lerp(plan.temperature**2 * soft, plan.teacher_weight) + looks

    return loss


def _network(module: nn.Module) -> Network:
    if not isinstance(module, Network):
        raise InputError(f"loss.feature_weight needs networks that effnet.build made; got {type(module).__name__}")
    return module


def attention_loss(maps: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
    """Return how differently two networks look at images: 0 for alike, at most 2 for nothing in common.

    `maps` and `taught` are the stages' maps [batch, channels, height, width], of any widths and sizes. Where a map is
    active is the sum of its squares over the channels, of length 1 an image; the loss is the squared distance of
    these, the mean over images and pairs of stages. It has no weights of its own, so that widths do not matter. Of
    every run of maps of one size the last counts; these are paired from the end backwards, and the teacher's resized.
    Source: Zagoruyko & Komodakis 2017, eq. 2 with the sum of squares, there without the square of the distance.
    """
    pairs = list(zip(reversed(_last_of_each_size(maps)), reversed(_last_of_each_size(taught)), strict=False))
    return torch.stack([(_look(a) - _look(b, size=a.shape[-2:])).square().sum(1).mean() for a, b in pairs]).mean()


def _last_of_each_size(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return of every run of maps of one size the last."""
    following = [*(found.shape[-1] for found in maps[1:]), 0]
    return [found for found, side in zip(maps, following, strict=True) if found.shape[-1] != side]


def _look(found: Tensor, *, size: Sequence[int] | None = None) -> Tensor:
    """Return where a map is active, [batch, height * width], of length 1."""
    energy = found.float().square().mean(1, keepdim=True)
    if size is not None and tuple(size) != tuple(energy.shape[-2:]):
        energy = functional.interpolate(energy, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return functional.normalize(energy.flatten(1), dim=1)


def keeping_answers(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function like `teacher` that runs it once for every image and then knows its answer.

    Images [batch, channels, R, R] are told apart by their pixels, so that an answer never belongs to another view.
    The answers are kept in memory, num_classes * 4 bytes each.
    """
    known: dict[bytes, Tensor] = {}

    def answer(images: Tensor) -> Tensor:
        rows = images.detach().to("cpu", torch.float32).contiguous().numpy()
        keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
        fresh = [number for number, key in enumerate(keys) if key not in known]
        if fresh:
            found = teacher(images[fresh]).float().cpu()
            known.update((keys[number], row.clone()) for number, row in zip(fresh, found, strict=True))
        return torch.stack([known[key] for key in keys]).to(images.device)

    return answer


def as_input(images: Tensor, source: Preprocess, target: Preprocess) -> Tensor:
    """Return images [batch, channels, R, R] that `source` normalised as `target` has them, of its resolution."""
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
