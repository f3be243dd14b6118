"""Knowledge distillation from a teacher: any bundle with the classes of the data set."""

import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import load_module
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.nn.network import Network
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
from effnet.training.recipe.balance import logit_offset
from effnet.training.recipe.schema import Augment, Loss, Recipe


def make_loss(
    recipe: Recipe,
    *,
    preprocess: Preprocess,
    class_names: Sequence[str],
    labels: np.ndarray | None = None,
    device: torch.device | None = None,
) -> LossFn:
    """Return the loss of a recipe for a student whose images are preprocessed by `preprocess`.

    int64 `labels` [images] are those of training; only a recipe that balances classes needs them.

    Raises BundleError if the teacher cannot be read, InputError if it has other classes, or if its logits cannot be
    cached as the recipe requests.
    """
    plan, number = recipe.loss, len(class_names)
    labels = np.empty(0, np.int64) if labels is None else labels
    terms = make_terms(recipe, labels, num_classes=number, device=device)
    if not plan.teacher:
        if plan.name == "bce":
            return binary_cross_entropy(plan.label_smoothing)
        return cross_entropy(plan.label_smoothing, terms)
    check_kept(recipe)
    config = read_teacher(plan.teacher, class_names=class_names, channels=preprocess.channels)
    shift = None
    if missing := recipe.balance.removed - config.balanced:
        offset = logit_offset(labels, num_classes=number, strength=missing)
        shift = torch.tensor(offset, dtype=torch.float32, device=device)
    return distillation(
        load_teacher(plan.teacher, device),
        plan,
        preprocess=preprocess,
        teacher_preprocess=config.preprocess,
        terms=terms,
        shift=shift,
    )


def load_teacher(folder: str | os.PathLike[str], device: torch.device | None) -> nn.Module:
    """Return the network of a teacher's bundle, which is not trained."""
    return load_module(folder).to(device, memory_format=torch.channels_last).requires_grad_(False)


def read_teacher(folder: str | os.PathLike[str], *, class_names: Sequence[str], channels: int) -> ModelConfig:
    """Return the config of a teacher's bundle; raise InputError unless it has these classes and channels."""
    config = read_config(folder)
    if config.class_names != tuple(class_names):
        raise InputError(
            f"the classes of the teacher must be those of the data set, in its order; {os.fspath(folder)} has "
            f"{_names(config.class_names)}, the data set {_names(class_names)}: set another loss.teacher, or train "
            "it on this data set"
        )
    if config.preprocess.channels != channels:
        raise InputError(
            f"the teacher must take as many channels as the student; {os.fspath(folder)} takes "
            f"{config.preprocess.channels}, the student {channels}: give --set "
            f"fit.channels={config.preprocess.channels}, or set another loss.teacher"
        )
    return config


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"


def check_kept(recipe: Recipe) -> None:
    """Raise InputError if loss.teacher_views needs a cache that the rest of the recipe rules out."""
    if not recipe.loss.teacher_views:
        return
    if recipe.loss.feature_weight:
        raise InputError(
            "loss.teacher_views caches logits only, but loss.feature_weight needs feature maps; set one of them"
        )
    plain, plan = Augment(), recipe.augment
    names = ("policy", "rotation", "jitter", "erasing", "mixup", "cutmix", "noise", "blur", "jpeg", "adversarial")
    fresh = [f"augment.{name}" for name in names if getattr(plan, name) != getattr(plain, name)]
    fresh += [f"stages.{name}" for name in ("mixup", "cutmix") if any(getattr(stage, name) for stage in recipe.stages)]
    if fresh:
        verb = "changes" if len(fresh) == 1 else "change"
        raise InputError(
            f"loss.teacher_views needs views that repeat; {', '.join(fresh)} {verb} them at every step: "
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
    """Return the loss (1 - w) * label loss + w * T^2 * KL(teacher at T || student at T) + f * attention loss.

    w is `teacher_weight`, T `temperature`; the factor T^2 keeps the scale of the gradients; for the rest see `taught`.
    Sources: Hinton et al. 2015, section 2; Beyer et al. 2022 (the same views for both). `terms` are those of the label
    loss; `shift` [classes] is subtracted from the teacher's logits: the class frequencies that they contain beyond the
    student's.
    """

    def labels(logits: Tensor, batch: Batch) -> Tensor:
        return labels_loss(logits, batch, name=plan.name, smoothing=plan.label_smoothing, terms=terms)

    def soft(logits: Tensor, answers: Tensor) -> Tensor:
        return soft_cross_entropy(logits, answers if shift is None else answers - shift, temperature=plan.temperature)

    return taught(teacher, plan, preprocess=preprocess, teacher_preprocess=teacher_preprocess, labels=labels, soft=soft)


def soft_cross_entropy(logits: Tensor, answers: Tensor, *, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher at T || student at T), the mean over images, of logits [batch, classes]."""
    found = functional.kl_div(
        functional.log_softmax(logits.float() / temperature, dim=1),
        functional.log_softmax(answers.float() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * found


def taught(
    teacher: nn.Module,
    plan: Loss,
    *,
    preprocess: Preprocess,
    teacher_preprocess: Preprocess,
    labels: Callable[[Tensor, Batch], Tensor],
    soft: Callable[[Tensor, Tensor], Tensor],
) -> LossFn:
    """Return the loss (1 - w) * labels(logits, batch) + w * soft(logits, the teacher's) + f * attention loss.

    w is `teacher_weight`, f `feature_weight`; attention_loss is left out if f is 0. Both networks see the same images,
    mixed ones too; the teacher's are renormalised and resized to `teacher_preprocess`, and it is not trained. Raises
    InputError if f needs the feature maps of a module that is no Network.
    """
    teacher.eval()
    ask = keeping_answers(teacher) if plan.teacher_views else teacher

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        shown = as_input(batch.images, preprocess, teacher_preprocess)
        looks = batch.images.new_zeros(())
        if plan.feature_weight:
            maps, logits = _network(model).maps_and_logits(batch.images)
            with torch.no_grad():
                theirs, answers = _network(teacher).maps_and_logits(shown)
            looks = plan.feature_weight * attention_loss(maps, theirs)
        else:
            logits = model(batch.images)
            with torch.no_grad():
                answers = ask(shown)
        return labels(logits, batch).lerp(soft(logits, answers), plan.teacher_weight) + looks

    return loss


def _network(module: nn.Module) -> Network:
    if not isinstance(module, Network):
        raise InputError(f"loss.feature_weight needs networks made by effnet.build; got {type(module).__name__}")
    return module


def attention_loss(maps: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
    """Return the attention-transfer loss of two networks: 0 for equal attention, at most 2 for nothing in common.

    `maps` and `taught` are the stages' feature maps [batch, channels, height, width], of any widths and sizes. The
    attention map is the mean of squares over the channels, normalised to length 1 per image; the loss is the squared
    distance of two attention maps, the mean over images and pairs of stages. It has no parameters, so widths do not
    matter. Of consecutive feature maps of one size the last counts; these are paired from the end backwards, and the
    teacher's are resized.
    Source: Zagoruyko & Komodakis 2017, eq. 2 with the sum of squares, there without the square of the distance.
    """
    pairs = list(zip(reversed(_last_of_each_size(maps)), reversed(_last_of_each_size(taught)), strict=False))
    return torch.stack([(_look(a) - _look(b, size=a.shape[-2:])).square().sum(1).mean() for a, b in pairs]).mean()


def _last_of_each_size(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return the last of every run of feature maps of one size."""
    following = [*(found.shape[-1] for found in maps[1:]), 0]
    return [found for found, side in zip(maps, following, strict=True) if found.shape[-1] != side]


def _look(found: Tensor, *, size: Sequence[int] | None = None) -> Tensor:
    """Return the attention map of a feature map, [batch, height * width], of length 1."""
    energy = found.float().square().mean(1, keepdim=True)
    if size is not None and tuple(size) != tuple(energy.shape[-2:]):
        energy = functional.interpolate(energy, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return functional.normalize(energy.flatten(1), dim=1)


def keeping_answers(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function like `teacher` that runs it once per image and caches its logits.

    Images [batch, channels, R, R] are identified by a hash of their pixels, so that logits never belong to another
    view. The logits stay in memory, num_classes * 4 bytes per image.
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
    """Return images [batch, channels, R, R], normalised by `source`, renormalised and resized to `target`."""
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
