"""Runs of the narrowest network on images whose class is their brightness, for the tests in this folder."""

import dataclasses

import numpy as np

from effnet import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.nn.network import build
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

PREPROCESS = Preprocess(resolution=16, crop=1.0, mean=(0.5,), std=(0.25,))
RECIPE = with_values(
    Recipe(),
    {"train.epochs": 3, "train.batch_size": 16, "train.lr": 5e-3, "model.dropout": 0.2, "model.drop_path": 0.1},
)
TUNING = with_values(RECIPE, {"train.layer_decay": 0.7, "train.frozen_norms": True, "train.start_counts": True})


def tiny_dataset(num=48, classes=3, side=16):
    """Return images whose class is their brightness, with noise: learnable, but not at once."""
    rng = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % classes
        base = (60 + 70 * labels)[:, None, None, None]
        images = np.clip(base + rng.normal(0, 30, (count, side, side, 1)), 0, 255).astype(np.uint8)
        return Split(sources=list(images), labels=labels.astype(np.int64))

    names = tuple(f"class {i}" for i in range(classes))
    return Dataset(
        name="tiny", class_names=names, channels=1, train=split(num), val=split(12), test=split(12), mirror_safe=True
    )


def tiny_spec(classes=3):
    """Return the narrowest network, without its last stages: its accuracy does not matter in these tests."""
    spec = with_total_stride(scale(get_spec("b0", num_classes=classes, in_channels=1), phi=-20, resolution=16), 8)
    return dataclasses.replace(spec, stages=spec.stages[:3])


def run(folder, *, listener=None, recipe=RECIPE, **kwargs):
    model = build(tiny_spec(), dropout=recipe.model.dropout, drop_path=recipe.model.drop_path, seed=0)
    return train(model, tiny_dataset(), recipe, PREPROCESS, folder=folder, listener=listener, **kwargs)


def run_saving(folder, **kwargs):
    """Run with a checkpoint after every step."""
    return run(folder, checkpoint_seconds=0.0, **kwargs)


def weights(result):
    return {name: tensor.clone() for name, tensor in result.model.state_dict().items()}


class Stop(Exception):
    """Ends a run from its listener."""


def part_of(name):
    """Return the part of the network that contains a parameter."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "stages" else words[0]
