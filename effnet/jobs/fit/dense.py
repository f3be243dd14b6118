"""What a fit does otherwise for detectors and segmenters: the recipe, the start of training, and their proof."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import write_text
from effnet.bundle.names import RECIPE
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.data.datasets import Dataset
from effnet.data.view.crop import size_at
from effnet.errors import ImageError
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import Attempt, write_recipe
from effnet.jobs.fit.transfer.finetune import Learned, train_in
from effnet.jobs.fit.transfer.head import origin_facts
from effnet.measurement.in_image import seconds_of, timed_places
from effnet.nn.dense import DenseNetwork
from effnet.planner.dense import dense_need
from effnet.planner.dense_recipe import dense_epochs, dense_recipe
from effnet.planner.search import TrainingNeed
from effnet.planner.space import Candidate
from effnet.system.machine import usable_cores
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.points import decode_points, points
from effnet.tasks.masks.enlarge import classes_of
from effnet.training.detection.staged import train_detector
from effnet.training.recipe.read import read_recipe
from effnet.training.recipe.schema import Recipe
from effnet.training.speed import run_speed
from effnet.training.state.state import any_network_for
from effnet.weights.pretrained import adapted, load_backbone

# What the time outside the network is guessed from before there is one: the side of the input, and the places with an
# object, several for each.
_TYPICAL_SIDE, _TYPICAL_OBJECTS, _ROUNDS = 320, 100, 7
# The share of the time that epochs are planned to fill: the last one must not be cut short, and where the decoder is
# trained first, that has its part. A validation image costs a third of one in training.
_FILLED, _ALL_SHARE, _VALIDATION = 0.9, 0.6, 3
_LEAST_EPOCHS = 2
# How long the speed is measured that all epochs are planned by: other processes come and go within a second.
_SPEED_SECONDS = 4.0
# Multiply-accumulates of an inference a core, for each second of training: a guess until it is measured.
_CORE_MACS = 3e9


def dense_attempt(job: Job, dataset: Dataset, index: int, candidate: Candidate) -> Attempt:
    """Return the attempt at a detector or a segmenter."""
    assert candidate.preprocess is not None
    epochs = job.config.epochs or job.asked.value("train.epochs") or dense_epochs(len(dataset.train))
    chosen = dense_recipe(
        candidate.spec,
        epochs=epochs,
        mirror_safe=dataset.mirror_safe,
        pretrained=bool(candidate.weights),
        seed=job.seed,
    )
    recipe = job.asked.complete(chosen, epochs=epochs, seed=job.seed)
    preprocess = dataclasses.replace(candidate.preprocess, value_range=dataset.value_range)
    if dataset.task == "segmentation":
        preprocess = dataclasses.replace(preprocess, scale=recipe.masks.scale)
    strategy = job.strategy if candidate.weights else "scratch"
    return Attempt(candidate=index, recipe=recipe, preprocess=preprocess, strategy=strategy)


def measured_need(job: Job, dataset: Dataset, candidates: Sequence[Candidate], *, minutes: float) -> TrainingNeed:
    """Return how large a network may be to train for enough epochs within `minutes`.

    The speed of one of the candidates is measured; the others take about as many multiply-accumulates a second.
    """
    images = _images_an_epoch(dataset)
    guess = dense_need(images, minutes=minutes, macs_per_second=usable_cores() * _CORE_MACS).most_macs
    near = min(candidates, key=lambda c: (abs(math.log(c.cost.macs / guess)), c.precision))
    attempt = dense_attempt(job, dataset, 0, near)
    speed = run_speed(near.spec, dataset, attempt.recipe, attempt.preprocess)
    need = dense_need(images, minutes=minutes * _epochs_share(attempt.recipe), macs_per_second=speed * near.cost.macs)
    return dataclasses.replace(need, most_macs=max(need.most_macs, min(c.cost.macs for c in candidates)))


def _images_an_epoch(dataset: Dataset) -> float:
    return len(dataset.train) + len(dataset.val) / _VALIDATION


def _epochs_share(recipe: Recipe) -> float:
    return _ALL_SHARE if recipe.kept.views else _FILLED


def typical_outside_ms(dataset: Dataset) -> float:
    """Return about the time from a network's outputs to the answer, in milliseconds.

    The finished file is measured with its own outputs, on the test images whose sizes count here.
    """
    rng, num_classes = np.random.default_rng(0), len(dataset.class_names)
    if dataset.task == "detection":
        places = points(_TYPICAL_SIDE, _TYPICAL_SIDE)
        logits = rng.normal(-6.0, 1.0, (len(places), num_classes)).astype(np.float32)
        logits[rng.choice(len(places), _TYPICAL_OBJECTS, replace=False), 0] = 1.0
        raw = np.zeros((len(places), 4), np.float32)

        def run() -> None:
            detect(raw, logits, lambda rows, at: decode_points(rows, places.centres[at], places.strides[at]))

        return 1e3 * min(seconds_of(run) for _ in range(_ROUNDS))
    small = rng.normal(size=(num_classes, _TYPICAL_SIDE // 4, _TYPICAL_SIDE // 4)).astype(np.float32)
    taken = []
    for place in timed_places(dataset.test):
        with contextlib.suppress(ImageError):
            height, width = size_at(dataset.test, place)
            enlarge = partial(classes_of, small, height=height, width=width)
            taken.append(min(seconds_of(enlarge) for _ in range(_ROUNDS)))
    return 1e3 * float(np.median(taken)) if taken else 0.0


def started(
    spec: ArchSpec, attempt: Attempt, *, weights: str, model: str | None
) -> tuple[DenseNetwork, dict[str, Any] | None]:
    """Return the network to train, and the facts of the pretrained `weights` of its backbone, if there are any."""
    network = any_network_for(spec, attempt.recipe)
    assert isinstance(network, DenseNetwork)
    if not weights:
        return network, None
    read = load_backbone(weights, model=model)
    found = adapted(read, num_classes=None, in_channels=spec.in_channels, resolution=spec.resolution)
    state = {name: array for name, array in found.state.items() if name.startswith(("stem.", "stages."))}
    load_arrays_(network, state_arrays(network) | state, where=weights)
    return network, origin_facts(read)


def learn_in_images(
    spec: ArchSpec,
    attempt: Attempt,
    dataset: Dataset,
    *,
    weights: str,
    seconds: float | None,
    folder: Path,
    job: Job,
) -> Learned:
    """Train a detector or a segmenter in `folder`, or resume its training there, within `seconds` if they are limited.

    Its backbone starts from the pretrained `weights`, if there are any.
    """
    network, start = started(spec, attempt, weights=weights, model=str(job.config.model) or None)
    recipe = timed_recipe(spec, attempt, dataset, seconds=seconds, folder=folder)
    job.say(f"Training {spec.title} for {recipe.train.epochs} epochs", heading=True)
    write_recipe(recipe, job.out)
    if dataset.task == "detection" and weights and job.ranks.size == 1:
        training = train_detector(
            network, dataset, recipe, attempt.preprocess, folder=folder, listener=job.listener, deadline_seconds=seconds
        )
    else:
        training = train_in(folder, network, dataset, recipe, attempt=attempt, job=job, seconds=seconds)
    return Learned(method="finetune" if weights else "scratch", training=training, recipe=recipe, start=start)


def timed_recipe(spec: ArchSpec, attempt: Attempt, dataset: Dataset, *, seconds: float | None, folder: Path) -> Recipe:
    """Return the recipe of an attempt with as many epochs as fit into `seconds`, if they are limited.

    It is kept in `folder`, so that a resumed fit does not measure again.
    """
    path = folder / RECIPE
    if path.is_file():
        return read_recipe(path, spec)
    recipe = attempt.recipe
    if seconds is not None:
        speed = run_speed(spec, dataset, recipe, attempt.preprocess, seconds=_SPEED_SECONDS)
        most = int(_epochs_share(recipe) * seconds * speed / _images_an_epoch(dataset))
        epochs = max(_LEAST_EPOCHS, min(recipe.train.epochs, most))
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=epochs))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(recipe.to_dict()))
    return recipe
