"""The ranges of layers' outputs, and their conversion to an 8-bit scale and zero point."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from effnet.arch.layers import Layer, named_layers
from effnet.arch.spec import ArchSpec

Ranges = Mapping[str, tuple[float, float]]
"""Least and largest output of a layer, by its name in named_layers; BatchNorm layers have none, they are folded."""

LEVELS = 255
SILU_MINIMUM = -0.27846455
# Below minus this limit a hard-swish is 0, above it x; a hard sigmoid is 0 and 1 there.
HARD_LIMIT = 3.0
_LIMITS = {
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "silu": (SILU_MINIMUM, math.inf),
    "hard_swish": (-0.375, math.inf),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
}
# Keeps every product of two scales a normal float32.
LEAST_SCALE = 1e-12


class Affine(NamedTuple):
    """A real number is `scale` * (q - `zero_point`), q in 0..255."""

    scale: float
    zero_point: int

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest number that can be represented."""
        return -self.scale * self.zero_point, self.scale * (LEVELS - self.zero_point)


def affine(low: float, high: float) -> Affine:
    """Return the finest scale that covers low..high and 0, which must be exact because it pads."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = max(float(np.float32((high - low) / LEVELS)), LEAST_SCALE)
    return Affine(scale, round(min(max(-low / scale, 0.0), LEVELS)))


def silu_input(low: float, high: float, output: Affine) -> Affine:
    """Return the scale of a SiLU's input: only as wide as the output's steps can distinguish.

    Far below zero SiLU is nearly 0: inputs are clipped if their output is within half a step of 0.
    """
    limit = 1.3
    while limit < 16 and silu(-limit) < -output.scale / 2:
        limit += 0.1
    top = output.limits[1]
    for _ in range(30):  # x = y / sigmoid(x)
        top = output.limits[1] * (1 + math.exp(-top))
    return affine(max(low, -limit), min(high, top))


def hard_swish_input(high: float, output: Affine) -> Affine:
    """Return the scale of a hard-swish's input: 0 represents -3, below which all outputs are 0."""
    top = max(min(high, max(output.limits[1], HARD_LIMIT)), HARD_LIMIT / 8)
    zero_point = max(1, round(HARD_LIMIT / ((top + HARD_LIMIT) / LEVELS)))
    return Affine(float(np.float32(HARD_LIMIT / zero_point)), zero_point)


def silu(x: float) -> float:
    """Return x * sigmoid(x)."""
    return x / (1 + math.exp(-x)) if x > -700 else 0.0


def within(function: str, low: float, high: float) -> tuple[float, float]:
    """Return the part of low..high that the activation or gate `function` can output; all of it without one.

    Both are 0 if no such output was seen, as after a dead ReLU.
    """
    floor, ceiling = _LIMITS.get(function, (-math.inf, math.inf))
    return min(max(low, floor), ceiling), max(min(high, ceiling), floor)


def inner_sums(name: str, layer: Layer) -> list[str]:
    """Return the names of the sums within a fusion of more than two feature maps, as `decoded.add_fusion` has them."""
    return [f"{name}.sum{number}" for number in range(2, len(layer.inputs))] if layer.op == "fuse" else []


def random_ranges(spec: ArchSpec) -> dict[str, tuple[float, float]]:
    """Return plausible ranges of every layer of `spec`, for timing an untrained network."""
    found: dict[str, tuple[float, float]] = {}
    for name, layer in named_layers(spec):
        found |= dict.fromkeys(inner_sums(name, layer), (-4.0, 4.0))
        if layer.op == "act":
            found[name] = within(layer.function, -4.0, 4.0)
        elif layer.op != "norm":
            found[name] = (-4.0, 4.0)
    return found
