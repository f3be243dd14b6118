"""What is compressed: a network's config and weights, without the files."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError
from effnet.runtime.config import ModelConfig
from effnet.training.batches import eval_batches

# Ranges of int8 need no more pictures: NNCF and ONNX Runtime take 100 to 300.
CALIBRATION_IMAGES = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network to compress; `state` is a state dict as arrays, `float_layers` must not be rounded."""

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    float_layers: tuple[str, ...] = ()


Sensitivity = tuple[tuple[str, float], ...]
"""Layers with the harm that rounding each alone does to the answers (KL, nats), the most harmful first."""


def calibration_images(
    dataset: Dataset, preprocess: Preprocess, *, count: int = CALIBRATION_IMAGES, seed: int = 0
) -> np.ndarray:
    """Returns `count` training pictures of all classes, uint8 [pictures, R, R, C], as preprocessing makes them.

    Every class gives as many as any other, as far as it has them. Raises DataError where the training pictures are of
    one class or none can be read: ranges found on them would not suit the others.
    """
    labels = dataset.train.labels
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(
            f"calibration needs training pictures of at least 2 classes; {dataset.name} has {len(classes)}: "
            "give the data that the network was trained on"
        )
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == number)) for number in classes]
    ranks = np.concatenate([np.arange(len(places)) for places in shuffled])
    order = np.concatenate(shuffled)[np.argsort(ranks, kind="stable")][:count]
    chosen = type(dataset.train)(sources=[dataset.train.sources[i] for i in order], labels=labels[order])
    found = [images for images, _ in eval_batches(chosen, preprocess)]
    if not found:
        raise DataError(f"calibration needs at least one training picture that can be read; {dataset.name} has none")
    return np.concatenate(found)
