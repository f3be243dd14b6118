"""Short trainings of candidates, in a small part of the time, to compare their accuracy."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RUN
from effnet.data.datasets import Dataset, Split
from effnet.data.inspection.inspect import DataReport
from effnet.data.inspection.shapes import resized_as
from effnet.data.order import Blocks
from effnet.data.preprocess import Preprocess
from effnet.jobs.fit.job import Job
from effnet.nas.trials import ROUNDS, Report, Score, scratch_folder
from effnet.planner.oracle import training_speed
from effnet.planner.settings import make_preprocess, make_recipe
from effnet.planner.space import Candidate
from effnet.progress import EpochEnd, Step
from effnet.system.machine import machine
from effnet.tasks.registry import find_task
from effnet.training.loop import train
from effnet.training.recipe.schema import Recipe
from effnet.training.state.state import network_for

# Fewer images per class than this say nothing about a network.
_LEAST_A_CLASS = 20
_MOST_VALIDATED = 1000


class _Stopped(Exception):
    """A short training fell behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A short training: the value of the task's figure after each epoch, larger is better, and its best epoch.

    `nll` is the mean validation loss of the best epoch, `loss` the mean training loss of the last one. `model` is the
    network of the best epoch, None if the training was stopped. `preprocess` is its preprocessing.
    """

    values: tuple[float, ...]
    nll: float
    loss: float
    model: Any
    preprocess: Preprocess

    @property
    def best(self) -> float:
        """The best value."""
        return max(self.values)


def short_training(job: Job, dataset: Dataset, report: DataReport, *, seconds: float) -> Score:
    """Return a function that trains a candidate for about `seconds`: nine epochs on as many images as that allows."""

    def score(candidate: Candidate, heard: Report) -> float:
        images = int(seconds * training_speed(candidate.spec) / ROUNDS)
        return train_briefly(candidate.spec, job, dataset, report, images=images, seed=job.seed, heard=heard).best

    return score


def train_briefly(
    spec: ArchSpec,
    job: Job,
    dataset: Dataset,
    report: DataReport,
    *,
    images: int,
    seed: int,
    epochs: int = ROUNDS,
    heard: Report = lambda epoch, value: True,
) -> Brief:
    """Train a network from scratch for a few epochs on about `images` images, the same ones for every network.

    `seed` draws weights and augmentation. `heard` gets the value of the task's figure after each epoch, and returns
    whether to continue.
    """
    some = part_of(dataset, images, seed=job.seed)
    side = report.median_short_side
    chosen = make_recipe(some, spec, epochs=epochs, short_side=side, memory_gb=machine()["memory_gb"], seed=seed)
    recipe = job.asked.complete(chosen, epochs=epochs, seed=seed)
    preprocess = make_preprocess(some, resolution=spec.resolution, short_side=side, seed=job.seed)
    preprocess = resized_as(preprocess, job.config.resize, report.shapes)
    model = None
    with Listening(job, dataset, recipe, heard) as listening:
        model = train(
            network_for(spec, recipe), some, recipe, preprocess, folder=listening.folder, listener=listening.hear,
            checkpoint_seconds=job.procedure.checkpoint_seconds,
        ).model  # fmt: skip
    values, ended = listening.values, listening.ended
    nll = ended[values.index(max(values))].val_loss
    return Brief(values=values, nll=nll, loss=ended[-1].loss, model=model, preprocess=preprocess)


class Listening:
    """Listens to a short training: `heard` gets the value of the task's figure after each epoch.

    As a context it gives the training a scratch `folder`, and ends it where `heard` returns False.
    """

    def __init__(self, job: Job, dataset: Dataset, recipe: Recipe, heard: Report) -> None:
        self.ended: list[EpochEnd] = []
        self._job, self._heard = job, heard
        self._figure = find_task(dataset.task).selected_by(balanced=bool(recipe.balance.removed))
        self._scratch = scratch_folder(job.out / RUN)

    def __enter__(self) -> "Listening":
        self.folder = self._scratch.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self._scratch.__exit__(None, None, None)
        return kind is _Stopped

    @property
    def values(self) -> tuple[float, ...]:
        """The value of the task's figure after each epoch, larger is better."""
        return tuple(map(self._value, self.ended))

    def _value(self, event: EpochEnd) -> float:
        return self._figure.better(event.figures[f"val_{self._figure.key}"])

    def hear(self, event: object) -> None:
        """Receive an event of the training."""
        if isinstance(event, EpochEnd):
            self.ended.append(event)
            if not self._heard(event.epoch, self._value(event)):
                raise _Stopped
        elif isinstance(event, Step):
            self._job.listener(event)


def part_of(dataset: Dataset, images: int, *, seed: int, most_validated: int = _MOST_VALIDATED) -> Dataset:
    """Return a data set with at most this many training images, enough of each class, and few validation images."""
    least = _LEAST_A_CLASS * len(dataset.class_names)
    return dataclasses.replace(
        dataset,
        train=_part(dataset.train, max(least, images), seed=seed),
        val=_part(dataset.val if len(dataset.val) else dataset.train, most_validated, seed=seed),
    )


def _part(split: Split, number: int, *, seed: int) -> Split:
    """Return at most this many images of a split, drawn evenly from each class, in their order."""
    if len(split) <= number:
        return split
    rng = np.random.default_rng(seed)
    places = _at_hand(split, number, rng)
    labels = _classes_of(split)[places]
    share = number / len(places)
    drawn = []
    for label in np.unique(labels):
        own = places[labels == label]
        drawn.append(rng.permutation(own)[: max(1, round(share * len(own)))])
    kept = np.sort(np.concatenate(drawn))
    blocks = split.blocks and Blocks(numbers=split.blocks.numbers[kept], mixed=split.blocks.mixed)
    return Split(sources=[split.sources[i] for i in kept], labels=split.labels[kept], blocks=blocks)


def _classes_of(split: Split) -> np.ndarray:
    """Return the class of each image, [images]; one for all if images have several labels, objects or masks."""
    one = split.labels.ndim == 1 and split.labels.dtype.kind in "iu"
    return split.labels if one else np.zeros(len(split), dtype=np.int64)


def _at_hand(split: Split, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of the images to draw from: all of them or, if blocks are downloaded, those of a few blocks.

    These few hold enough images and every class: a trial must not download a data set that fits on no disk.
    """
    if split.blocks is None:
        return np.arange(len(split))
    labels = _classes_of(split)
    numbers, classes = split.blocks.numbers, len(np.unique(labels))
    found = np.zeros(len(split), dtype=bool)
    for block in rng.permutation(np.unique(numbers)):
        found |= numbers == block
        if found.sum() >= number and len(np.unique(labels[found])) == classes:
            break
    return np.flatnonzero(found)
