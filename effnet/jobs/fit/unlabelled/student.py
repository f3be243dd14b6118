"""The training of a student: on labelled and pseudo-labelled images with noise, then on the labelled ones."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_
from effnet.data.datasets import Dataset
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import Attempt
from effnet.jobs.fit.transfer.finetune import Learned, train_in
from effnet.jobs.fit.transfer.head import HEAD, of_head, read_head
from effnet.jobs.fit.unlabelled.kept import PARTS, Kept
from effnet.nn.network import Network, zero_classifier_
from effnet.planner.settings import finetune_recipe
from effnet.training.classification.learning import hard_labels
from effnet.training.loop import TrainResult
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.speed import train_speed
from effnet.training.state.checkpoint import trained_seconds
from effnet.training.state.state import network_for
from effnet.training.unlabelled.student import RATIO, StudentLoss, labelled_recipe, noisy_recipe, student_set
from effnet.weights.adapt import has_folded_norms

# The epochs of a student that time is used for; for fewer than the least, fewer pseudo-labels are learnt instead, but
# at least as many as there are labelled images: of 148 beside 2,358 a student became worse (fashion, 100 labels a
# class).
_LEAST_EPOCHS, _MOST_EPOCHS = 3, 30
# Images per second with augmentation, relative to steps alone.
_WITH_NOISE = 0.75
# The shares of the time for the two trainings; the rest is the proof. The second is a share of the first's views, of
# at most so many epochs: few images are soon learnt by heart.
_MIXED_SHARE, _LABELLED_SHARE, _MOST_LABELLED = 0.8, 0.1, 5
# From this many images on, batches are those of large data sets, of 64 instead of 32 images (planner.settings).
_MANY, _SMALL_BATCH = 2000, 32
# What is decided for a student; all other requested settings apply.
_OWN = ("train.epochs", "train.seed", "train.patience", "train.start_counts", "train.last_counts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """The number of pseudo-labels to learn, and the epochs: of all images, then of the labelled ones."""

    pseudo: int
    epochs: int
    labelled_epochs: int


def plan_epochs(
    spec: ArchSpec,
    *,
    labelled: int,
    pseudo: int,
    seconds: float | None,
    read: float,
    epochs: int | None,
    steps: float = 1.0,
) -> Epochs | None:
    """Return how long a student is trained: for `epochs`, or as long as the `seconds` allow; None if they are too few.

    `read` is the seconds that reading an image takes; an image costs as much as `steps` training steps.
    """
    if epochs is None:
        least = _least(labelled, pseudo)
        assert seconds is not None
        views = seconds * _views_a_second(spec, read=read, steps=steps)
        epochs = min(_MOST_EPOCHS, int(views / _views(labelled, pseudo)))
        if epochs < _LEAST_EPOCHS:
            room = views / _LEAST_EPOCHS
            pseudo = int(min(pseudo, room - labelled, room * RATIO / (RATIO + 1)))
            epochs = _LEAST_EPOCHS
            if pseudo < least:
                return None
    seen = epochs * _views(labelled, pseudo)
    return Epochs(
        pseudo=pseudo,
        epochs=epochs,
        labelled_epochs=min(_MOST_LABELLED, max(1, round(_LABELLED_SHARE * seen / labelled))),
    )


def least_seconds(spec: ArchSpec, *, labelled: int, pseudo: int, read: float, steps: float = 1.0) -> float:
    """Return the seconds from which on `plan_epochs` plans a student of `pseudo` images."""
    views = _LEAST_EPOCHS * _views(labelled, _least(labelled, pseudo))
    return views / _views_a_second(spec, read=read, steps=steps)


def _least(labelled: int, pseudo: int) -> int:
    """Return the least number of pseudo-labels that a student is trained for."""
    return max(1, min(labelled, pseudo))


def _views_a_second(spec: ArchSpec, *, read: float, steps: float) -> float:
    """Return the images a second that a student sees in the first training, over the time of both."""
    return _MIXED_SHARE / (steps / (_WITH_NOISE * train_speed(spec)) + read)


def _views(labelled: int, pseudo: int) -> int:
    """Return the images of an epoch."""
    return pseudo + max(labelled, math.ceil(pseudo / RATIO))


def learn(
    kept: Kept,
    teacher: Learned,
    *,
    attempt: Attempt,
    dataset: Dataset,
    folder: Path,
    root: Path,
    seconds: float | None,
    job: Job,
) -> Learned:
    """Return the student of these pseudo-labels, trained in `folder`, or resume its training there.

    It starts as the `teacher` did, from the pretrained weights with the head in `root`, or from scratch; not from the
    teacher. `seconds` limit its training.
    """
    assert isinstance(teacher.training.model, Network)
    head = read_head(root)
    spec = of_head(teacher.training.model.spec, head)
    first = recipe_of(kept, attempt, dataset, spec, head and head[0], job, noisy=noisy_recipe)
    images = student_set(
        dataset, job.unlabelled.split.sources, kept.pseudo,  # type: ignore[union-attr]
        smoothing=first.loss.label_smoothing, seed=job.seed,
    )  # fmt: skip
    network = started(spec, first, head and head[0], root)
    loss = StudentLoss(recipe=first, labels=hard_labels(images.train.labels), num_classes=len(dataset.class_names))
    mixed = train_in(
        folder / PARTS[0], network, images, first, attempt=attempt, job=job, seconds=limit_of(folder, seconds),
        make_loss=loss,
    )  # fmt: skip
    second = labelled_recipe(first, epochs=kept.labelled_epochs)
    network = network_for(spec, second)
    network.load_state_dict(mixed.model.state_dict())
    last = train_in(folder / PARTS[1], network, dataset, second, attempt=attempt, job=job, seconds=None)
    spent = teacher.training.seconds + mixed.seconds + last.seconds
    return dataclasses.replace(
        teacher,
        method="scratch" if head is None else "finetune",
        training=dataclasses.replace(last, **_joined(mixed, last), seconds=spent),
        recipe=first,
        validation=None,
        later=None,
    )


def started(spec: ArchSpec, recipe: Recipe, state: Any, root: Path) -> Network:
    """Return the network that a student begins as: with the pretrained weights and head, `state`, or from scratch."""
    network = network_for(spec, recipe)
    if state is not None:
        load_arrays_(network, state, where=str(root / HEAD))
    elif recipe.model.zero_classifier:
        zero_classifier_(network)
    return network


def limit_of(folder: Path, seconds: float | None) -> float | None:
    """Return the seconds after which the training on all images ends, with those of earlier sessions."""
    return None if seconds is None else trained_seconds(folder / PARTS[0]) + max(1.0, seconds)


def recipe_of(
    kept: Kept,
    attempt: Attempt,
    dataset: Dataset,
    spec: ArchSpec,
    state: Any,
    job: Job,
    *,
    noisy: Callable[..., Recipe],
) -> Recipe:
    """Return the recipe of the first training; `state` are the weights it starts from, if any.

    `noisy` makes a recipe that of the method, for a number of epochs.
    """
    num_train, base = _views(len(dataset.train), len(kept.pseudo.classes)), attempt.recipe
    if num_train >= _MANY and base.train.batch_size == _SMALL_BATCH:
        train = dataclasses.replace(base.train, batch_size=2 * _SMALL_BATCH, lr=base.train.lr * math.sqrt(2))
        base = dataclasses.replace(base, train=train)
    if state is not None:
        base = finetune_recipe(
            base, attempt.preprocess, num_train=num_train, epochs=kept.epochs,
            folded=has_folded_norms({name: np.asarray(array) for name, array in state.items()}, spec),
        )  # fmt: skip
    settings = {
        name: value
        for name, value in job.asked.settings.items()
        if name not in _OWN and not name.startswith("loss.teacher") and name != "loss.feature_weight"
    }
    return with_values(noisy(base, epochs=kept.epochs), settings)


def _joined(mixed: TrainResult, last: TrainResult) -> dict[str, Any]:
    """Return the history of both trainings as that of one."""
    before = len(mixed.history)
    rows = tuple({**row, "epoch": row["epoch"] + before} for row in last.history)
    stopped = f"{mixed.stopped}, then {last.stopped} on the labelled images"
    return {"history": (*mixed.history, *rows), "best_epoch": before + last.best_epoch, "stopped": stopped}
