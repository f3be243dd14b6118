"""What a fit does otherwise for detectors and segmenters: the recipe, the start of training, and their proof."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig, write_config
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.data.datasets import Dataset
from effnet.data.inspection.inspect import DataReport
from effnet.jobs.fit.head import origin_facts
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import Attempt
from effnet.measurement.evaluate import evaluate
from effnet.nn.dense import DenseNetwork
from effnet.planner.dense_recipe import dense_epochs, dense_recipe
from effnet.planner.space import Candidate
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.predictor import Predictor
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.points import decode_points, points
from effnet.tasks.masks.enlarge import classes_of
from effnet.training.state import any_network_for
from effnet.weights.pretrained import adapted, load_backbone

# What the time outside the network is guessed from before there is one: the side of the input, and the places with an
# object, several for each.
_TYPICAL_SIDE, _TYPICAL_OBJECTS, _ROUNDS = 320, 100, 7


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


def typical_outside_ms(task: str, report: DataReport, *, num_classes: int) -> float:
    """Return about the time from a network's outputs to the answer, in milliseconds, for an image of the median size.

    The finished file is measured with its own outputs.
    """
    rng = np.random.default_rng(0)
    height, width = report.heights.median, report.widths.median
    if task == "detection":
        places = points(_TYPICAL_SIDE, _TYPICAL_SIDE)
        logits = rng.normal(-6.0, 1.0, (len(places), num_classes)).astype(np.float32)
        logits[rng.choice(len(places), _TYPICAL_OBJECTS, replace=False), 0] = 1.0
        raw = np.zeros((len(places), 4), np.float32)

        def run() -> None:
            detect(raw, logits, lambda rows, at: decode_points(rows, places.centres[at], places.strides[at]))
    else:
        small = rng.normal(size=(num_classes, _TYPICAL_SIDE // 4, _TYPICAL_SIDE // 4)).astype(np.float32)

        def run() -> None:
            classes_of(small, height=height, width=width)

    taken = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


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


def with_threshold(
    config: ModelConfig, state: Mapping[str, np.ndarray], dataset: Dataset, *, folder: Path
) -> ModelConfig:
    """Return the config with the threshold of the best F1 on the validation images, if it is a detector's.

    The bundle `folder` and its ONNX file get it.
    """
    write_config(config, folder)
    export_onnx(folder, config, state)
    if dataset.task != "detection" or not len(dataset.val):
        return config
    score = evaluate(Predictor(folder), dataset.val)
    config = dataclasses.replace(config, threshold=round(float(score.threshold), 4))
    write_config(config, folder)
    export_onnx(folder, config, state)
    return config
