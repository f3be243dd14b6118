"""Short trainings of candidates, in a small part of the time, to compare their accuracy."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from effnet.bundle.names import RUN
from effnet.data.datasets import Dataset, Split
from effnet.data.inspection.inspect import DataReport
from effnet.data.inspection.shapes import resized_as
from effnet.data.order import Blocks
from effnet.jobs.fit.job import Job
from effnet.planner.oracle import training_speed
from effnet.planner.settings import make_preprocess, make_recipe
from effnet.planner.space import Candidate
from effnet.planner.trials import ROUNDS, Report, Score, scratch_folder
from effnet.progress import EpochEnd, Step
from effnet.system.machine import machine
from effnet.training.loop import train
from effnet.training.state import network_for

# Fewer images per class than this say nothing about a network.
_LEAST_A_CLASS = 20
_MOST_VALIDATED = 1000


class _Stopped(Exception):
    """A trial fell behind."""


def short_training(job: Job, dataset: Dataset, report: DataReport, *, seconds: float) -> Score:
    """Return a function that trains a candidate for about `seconds`: nine epochs on as many images as that allows."""

    def score(candidate: Candidate, heard: Report) -> float:
        spec = candidate.spec
        least = _LEAST_A_CLASS * len(dataset.class_names)
        number = max(least, int(seconds * training_speed(spec) / ROUNDS))
        some = dataclasses.replace(
            dataset,
            train=_part(dataset.train, number, seed=job.seed),
            val=_part(dataset.val if len(dataset.val) else dataset.train, _MOST_VALIDATED, seed=job.seed),
        )
        side = report.median_short_side
        chosen = make_recipe(
            some, spec, epochs=ROUNDS, short_side=side, memory_gb=machine()["memory_gb"], seed=job.seed
        )
        recipe = job.asked.complete(chosen, epochs=ROUNDS, seed=job.seed)
        preprocess = make_preprocess(some, resolution=spec.resolution, short_side=side, seed=job.seed)
        preprocess = resized_as(preprocess, job.config.resize, report.shapes)
        best, listener = _listener(job, heard, balanced=bool(recipe.balance.removed))
        with scratch_folder(job.out / RUN) as folder, suppress(_Stopped):
            train(
                network_for(spec, recipe), some, recipe, preprocess, folder=folder, listener=listener,
                checkpoint_seconds=job.procedure.checkpoint_seconds,
            )  # fmt: skip
        return best()

    return score


def _listener(job: Job, heard: Report, *, balanced: bool) -> tuple[Callable[[], float], Callable]:
    found = [0.0]

    def listen(event: object) -> None:
        if isinstance(event, EpochEnd):
            reached: Any = event.figures["val_balanced_accuracy" if balanced else "val_accuracy"]
            found.append(reached)
            if not heard(event.epoch, reached):
                raise _Stopped
        elif isinstance(event, Step):
            job.listener(event)

    return lambda: max(found), listen


def _part(split: Split, number: int, *, seed: int) -> Split:
    """Return at most this many images of a split, drawn evenly from each class, in their order."""
    if len(split) <= number:
        return split
    rng = np.random.default_rng(seed)
    places = _at_hand(split, number, rng)
    labels = split.labels[places]
    share = number / len(places)
    drawn = []
    for label in np.unique(labels):
        own = places[labels == label]
        drawn.append(rng.permutation(own)[: max(1, round(share * len(own)))])
    kept = np.sort(np.concatenate(drawn))
    blocks = split.blocks and Blocks(numbers=split.blocks.numbers[kept], mixed=split.blocks.mixed)
    return Split(sources=[split.sources[i] for i in kept], labels=split.labels[kept], blocks=blocks)


def _at_hand(split: Split, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of the images to draw from: all of them or, if blocks are downloaded, those of a few blocks.

    These few hold enough images and every class: a trial must not download a data set that fits on no disk.
    """
    if split.blocks is None:
        return np.arange(len(split))
    numbers, classes = split.blocks.numbers, len(np.unique(split.labels))
    found = np.zeros(len(split), dtype=bool)
    for block in rng.permutation(np.unique(numbers)):
        found |= numbers == block
        if found.sum() >= number and len(np.unique(split.labels[found])) == classes:
            break
    return np.flatnonzero(found)
