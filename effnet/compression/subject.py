"""The network to compress: its config and weights, without files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import Dataset
from effnet.data.inspection.mirrors import with_mirrors_judged
from effnet.system.files import read_json


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network to compress; `state` is a state dict as arrays, `float_layers` must not be quantized."""

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    float_layers: tuple[str, ...] = ()


Sensitivity = tuple[tuple[str, float], ...]
"""Layers with the divergence (KL, nats) of the predictions if only that layer is quantized, the largest first."""


def mirrored_as_trained(dataset: Dataset, bundle: Path) -> Dataset:
    """Return the dataset, `mirror_safe` false if the bundle was trained without mirroring or mirroring is unsafe."""
    try:
        flip = read_json(bundle / "run" / "recipe.json")["augment"]["flip"]
    except (OSError, ValueError, LookupError, TypeError):  # neither a linear probe nor published weights have a recipe
        flip = None
    return replace(dataset, mirror_safe=False) if flip is False else with_mirrors_judged(dataset)
