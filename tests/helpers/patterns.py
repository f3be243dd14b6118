"""A small problem that a tiny network solves in seconds, and weights that are good in fp32 and bad in int8."""

import dataclasses

import numpy as np
from tiny_runs import PREPROCESS, RECIPE, tiny_spec

from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import state_arrays
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset, Split
from effnet.nn.network import build
from effnet.training.loop import train
from effnet.training.recipe.file import with_values

NAMES = ("a", "b", "c", "d")
LEARNING = with_values(
    RECIPE,
    {"train.epochs": 14, "augment.view": "none", "augment.flip": False, "model.dropout": 0.0, "model.drop_path": 0.0},
)


def patterns():
    """Four patterns of 16 x 16 grey pixels with as much noise as signal."""
    rng = np.random.default_rng(0)
    shapes = rng.normal(0, 1, (len(NAMES), 16, 16, 1))

    def split(count):
        labels = np.arange(count) % len(NAMES)
        pixels = 128 + 45 * shapes[labels] + rng.normal(0, 45, (count, 16, 16, 1))
        return Split(sources=list(np.clip(pixels, 0, 255).astype(np.uint8)), labels=labels.astype(np.int64))

    return Dataset(
        name="patterns", class_names=NAMES, channels=1, train=split(128), val=split(64), test=split(64),
        mirror_safe=False,
    )  # fmt: skip


def learned(folder, activation="relu"):
    """A subject that has learned the patterns."""
    spec = dataclasses.replace(tiny_spec(len(NAMES)), activation=activation)
    found = train(build(spec, seed=0), patterns(), LEARNING, PREPROCESS, folder=folder)
    config = ModelConfig(arch=spec, preprocess=PREPROCESS, class_names=NAMES)
    return Subject(config=config, state=state_arrays(found.model))


def unbalanced(subject, factor=64.0):
    """The same function, but in each expansion a few channels are so large that int8 rounds the others to 0.

    ReLU is scale-equivariant, so that the next layer can undo the factor.
    """
    state, rng = dict(subject.state), np.random.default_rng(1)
    for name in [name for name in state if name.endswith(".depthwise.conv.weight")]:
        norm = name.replace("depthwise.conv.weight", "expand.norm")
        if f"{norm}.weight" not in state:
            continue
        factors = np.ones(len(state[name]), np.float32)
        factors[rng.permutation(len(factors))[: max(1, len(factors) // 8)]] = factor
        for part in ("weight", "bias"):
            state[f"{norm}.{part}"] = state[f"{norm}.{part}"] * factors
        state[name] = state[name] / factors[:, None, None, None]
    return dataclasses.replace(subject, state=state)
