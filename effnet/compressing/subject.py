"""What is compressed: a network's config and weights, without the files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.mirrors import with_mirrors_judged
from effnet.runtime.config import ModelConfig
from effnet.system.files import read_json


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network to compress; `state` is a state dict as arrays, `float_layers` must not be rounded."""

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    float_layers: tuple[str, ...] = ()


Sensitivity = tuple[tuple[str, float], ...]
"""Layers with the harm that rounding each alone does to the answers (KL, nats), the most harmful first."""


def mirrored_as_trained(dataset: Dataset, bundle: Path) -> Dataset:
    """Return the data set, not `mirror_safe` where the bundle was trained on no mirrored image, or none would do."""
    try:
        flip = read_json(bundle / "run" / "recipe.json")["augment"]["flip"]
    except (OSError, ValueError, LookupError, TypeError):  # a head alone has no recipe, nor have published weights
        flip = None
    return replace(dataset, mirror_safe=False) if flip is False else with_mirrors_judged(dataset)
