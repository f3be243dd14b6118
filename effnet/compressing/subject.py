"""What is compressed: a network's config and weights, without the files."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from effnet.runtime.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network to compress; `state` is a state dict as arrays, `float_layers` must not be rounded."""

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    float_layers: tuple[str, ...] = ()


Sensitivity = tuple[tuple[str, float], ...]
"""Layers with the harm that rounding each alone does to the answers (KL, nats), the most harmful first."""
