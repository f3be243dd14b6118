"""Transfer learning: a head on frozen features first, then, if it is worthwhile, the whole network."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RECIPE
from effnet.bundle.weights import load_arrays_
from effnet.data.datasets import Dataset
from effnet.jobs.fit.config import HeadFeatures
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import Attempt
from effnet.jobs.fit.transfer.head import (
    HEAD,
    HEAD_ALONE,
    Head,
    Validation,
    fit_head,
    head_in_words,
    of_head,
    read_head,
)
from effnet.jobs.fit.transfer.later_stages import LATER, Later, later_stages_
from effnet.jobs.fit.transfer.length import TimeLimit, tuned_recipe
from effnet.nn.network import Network, build
from effnet.planner.events import Listener, Said
from effnet.planner.timetable import Pace, not_enough
from effnet.report.unlabelled import UnlabelledFacts
from effnet.tasks.registry import find_task
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.distributed.team import Training, train_together
from effnet.training.loop import TrainResult
from effnet.training.losses import LossFn
from effnet.training.recipe.schema import Balance, Recipe
from effnet.training.state.checkpoint import trained_seconds
from effnet.training.state.position import CHECKPOINT_SECONDS
from effnet.training.state.state import network_for

# Settings that a head on features of images as they are cannot follow.
_NOT_BY_HEAD = ("augment.noise", "augment.blur", "augment.jpeg", "augment.adversarial")

Method = Literal["scratch", "head", "finetune"]

# With the strategy auto the whole network is fine-tuned only if the head's accuracy is below this (above, validation
# has too few mistakes to tell whether it helped) and a class has this many training images (with fewer it overfits);
# benchmarks/few_labels.py measures the gain.
_GOOD_ENOUGH, ENOUGH_A_CLASS = 0.95, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A trained network and how it was trained; `recipe` is None if only a head was trained.

    `head` holds the facts of the head and of its weights, as `fit_head` writes them into head.safetensors.
    `start` are those of the weights alone, of a decoder on a pretrained backbone.
    `validation` is set if the network is that head, `later` if its later stages were trained first. `left_out` lists
    the steps for which there was no time, and `unlabelled` says what was learnt from unlabelled images.
    """

    method: Method
    training: TrainResult
    recipe: Recipe | None
    head: Mapping[str, Any] | None = None
    start: Mapping[str, Any] | None = None
    validation: Validation | None = None
    left_out: tuple[str, ...] = ()
    unlabelled: UnlabelledFacts | None = None
    later: Later | None = None


def transfer(
    spec: ArchSpec,
    attempt: Attempt,
    dataset: Dataset,
    *,
    weights: str,
    model: str | None,
    epochs: int | None,
    minutes: float | None,
    folder: Path,
    listener: Listener,
    ranks: Ranks = ALONE,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    settings: Mapping[str, Any] | None = None,
    pace: Pace | None = None,
    left: Callable[[], float] = lambda: math.inf,
    students: float = 0.0,
    pooled: tuple[int, ...] = (),
    reads: HeadFeatures = "auto",
) -> Learned:
    """Train `spec` from the pretrained `weights` in `folder`, or resume its training there.

    This process trains the head, all `ranks` fine-tune, for `epochs` or as many as fit into `minutes`. `settings`
    change fields of its recipe by their dotted names. With a `pace` a deadline replaces `minutes`: `left` returns the
    remaining seconds for all of it, and a step that cannot end by then is not begun. Fine-tuning may take some of
    the seconds of the `students` that follow; see `TimeLimit`. The head `reads` the outputs of the stages `pooled` as
    well; see `fit_head`. Raises WeightsError if the weights are not available.
    """
    limit = TimeLimit(minutes=minutes, pace=pace, left=left, students=students)
    folder.mkdir(parents=True, exist_ok=True)
    done = read_head(folder)
    if done is None:
        done = fit_head(
            spec, attempt, dataset, weights=weights, model=model, folder=folder, left=left, listener=listener,
            pooled=pooled, reads=reads,
        )  # fmt: skip
    facts, figure = done[1], find_task(dataset.task).figure
    spec = of_head(spec, done)
    left_out = tuple(filter(None, [facts.get("left_out")]))
    listener(Said(text=head_in_words(facts, figure)))
    enough = _is_enough(facts, attempt, dataset, settings or {}, listener)
    late = "" if enough or attempt.strategy == "head" else _too_late(attempt.recipe, spec, dataset, limit, folder)
    if late:
        listener(Said(text=late))
        left_out += (late,)
    alone = read_head(folder, HEAD_ALONE)
    if enough or late or attempt.strategy == "head":
        if alone is not None:
            listener(Said(text=head_in_words(alone[1], figure)))
        return _head_alone(spec, alone or done, left_out)
    found = _finetune(
        spec, attempt, dataset, done, epochs=epochs, limit=limit, settings=settings or {}, folder=folder,
        listener=listener, ranks=ranks, checkpoint_seconds=checkpoint_seconds,
    )  # fmt: skip
    if alone is not None and _is_its_head(found):
        training = dataclasses.replace(found.training, model=_with_head(spec, alone))
        found = dataclasses.replace(found, training=training, head=alone[1], validation=alone[2])
    return dataclasses.replace(found, left_out=left_out)


def _is_enough(
    facts: Mapping[str, Any], attempt: Attempt, dataset: Dataset, settings: Mapping[str, Any], listener: Listener
) -> bool:
    """Return whether nothing but the head is trained, which is said with its reason; only by the strategy auto."""
    if attempt.strategy != "auto" or any(settings.get(name) for name in _NOT_BY_HEAD):
        return False
    reason = _why_no_more(facts, dataset, attempt.recipe.balance)
    if reason:
        advice = "--set fit.strategy=finetune trains the whole network nevertheless"
        listener(Said(text=f"The head is enough: {reason}; {advice}"))
    return bool(reason)


def _is_its_head(found: Learned) -> bool:
    """Return whether no epoch was better than the head that it began with."""
    return not found.training.best_epoch and (found.later is None or not found.later.training.best_epoch)


def train_in(
    folder: Path,
    network: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    attempt: Attempt,
    job: Job,
    seconds: float | None,
    make_loss: Callable[[Ranks], LossFn] | None = None,
) -> TrainResult:
    """Train `network` in `folder` with all processes of a job, or resume its training there; see `Training`."""
    return train_together(
        Training(
            model=network,
            dataset=dataset,
            recipe=recipe,
            preprocess=attempt.preprocess,
            folder=folder,
            deadline_seconds=seconds,
            checkpoint_seconds=job.procedure.checkpoint_seconds,
            make_loss=make_loss,
        ),
        job.ranks,
        listener=job.listener,
    )


def _head_alone(spec: ArchSpec, head: Head, left_out: tuple[str, ...]) -> Learned:
    """Return a network of which only the head was fitted."""
    _, facts, validation = head
    training = TrainResult(
        model=_with_head(spec, head),
        history=(),
        best_epoch=0,
        stopped="fitted the head on frozen features",
        seconds=facts["seconds"],
        device="cpu",
    )
    return Learned(method="head", training=training, recipe=None, head=facts, validation=validation, left_out=left_out)


def _with_head(spec: ArchSpec, head: Head) -> Network:
    """Return the network with a fitted head."""
    network = build(of_head(spec, head))
    load_arrays_(network, head[0], where="the head")
    return network.eval()


def _too_late(recipe: Recipe, spec: ArchSpec, dataset: Dataset, limit: TimeLimit, folder: Path) -> str:
    """Return a sentence if no fine-tuning fits into the rest: no epoch with its validation, nor the later stages."""
    if limit.pace is None or (folder / RECIPE).is_file():  # it has begun
        return ""
    needs, left = limit.epoch(spec, dataset), limit.left()
    if left >= needs or limit.with_later_stages(recipe, spec, dataset, spent=0, folder=folder).kept.views:
        return ""
    return not_enough("Fine-tuning was not begun, the head stays", needs=needs, left=left)


def _finetune(
    spec: ArchSpec,
    attempt: Attempt,
    dataset: Dataset,
    head: Head,
    *,
    epochs: int | None,
    limit: TimeLimit,
    settings: Mapping[str, Any],
    folder: Path,
    listener: Listener,
    ranks: Ranks,
    checkpoint_seconds: float,
) -> Learned:
    """Fine-tune the whole network of `spec`, whose head is trained already."""
    state, facts, _ = head
    spent = facts["seconds"]
    recipe = tuned_recipe(
        attempt, dataset, spec, state, epochs=epochs, limit=limit, settings=settings, spent=spent, folder=folder,
        kept=ranks.size == 1,
    )  # fmt: skip
    tuned = network_for(spec, recipe)
    load_arrays_(tuned, state, where=str(folder / HEAD))
    later = None
    if recipe.kept.views and ranks.size == 1:
        later = later_stages_(
            tuned, dataset, recipe, attempt.preprocess, folder=folder, listener=listener,
            deadline_seconds=limit.seconds(folder / LATER, spent=spent),
        )  # fmt: skip
        spent += later.training.seconds
        if recipe.kept.alone:
            training = dataclasses.replace(later.training, seconds=spent)
            return Learned(method="finetune", training=training, recipe=recipe, head=facts, later=later)
    listener(Said(text=f"Fine-tuning the whole network for {recipe.train.epochs} epochs", heading=True))
    training = train_together(
        Training(
            model=tuned,
            dataset=dataset,
            recipe=recipe,
            preprocess=attempt.preprocess,
            folder=folder,
            deadline_seconds=limit.seconds(folder, spent=spent),
            checkpoint_seconds=checkpoint_seconds,
        ),
        ranks,
        listener=listener,
    )
    training = dataclasses.replace(training, seconds=training.seconds + spent)
    return Learned(method="finetune", training=training, recipe=recipe, head=facts, later=later)


def _why_no_more(facts: Mapping[str, Any], dataset: Dataset, balance: Balance) -> str:
    """Return the reason not to fine-tune the whole network after the head; empty if it is worthwhile."""
    key, of_each = ("val_balanced_figure", " of each class, on average,") if balance.removed else ("val_figure", "")
    if facts[key] >= _GOOD_ENOUGH:
        title = find_task(dataset.task).figure.title
        if title != "accuracy":
            return f"its {title} is at least {_GOOD_ENOUGH:.0%} on the validation images"
        return f"it is right on at least {_GOOD_ENOUGH:.0%} of the validation images{of_each}"
    a_class = dataset.images_a_class
    if a_class < ENOUGH_A_CLASS:
        return f"{a_class:.0f} training images per class, of the {ENOUGH_A_CLASS} that fine-tuning needs"
    return ""


def learned_seconds(folder: Path) -> float:
    """Return the seconds that head and training in `folder` have taken so far."""
    head = read_head(folder)
    return (head[1]["seconds"] if head else 0.0) + trained_seconds(folder)
