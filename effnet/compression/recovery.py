"""Recovery: short training after a change to a network, by distillation from the original network."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.weights import load_arrays_, save_bundle, state_arrays
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import DenseNetwork, build_network
from effnet.nn.network import Network
from effnet.progress import Listener
from effnet.training.loop import train
from effnet.training.recipe.schema import Augment, Balance, Loss, Model, Optimizer, Recipe, Schedule, Train

# Training steps that recover a changed network; more of them help little if the change was small.
_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 800, 3, 100
# The weight of the distillation loss; the rest is the labels' loss.
_TEACHER_WEIGHT = 0.7
# The share of the time for training; validation and checkpoints take the rest.
_TRAINING_SHARE = 0.8


def recovery_epochs(
    num_train: int, *, batch_size: int, images_per_second: float, minutes: float | None, most: int | None = None
) -> int:
    """Return the number of epochs of a recovery: about 800 steps, or what fits into `minutes`; never above `most`."""
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_STEPS * batch_size / num_train)), most or _MOST_EPOCHS)
    if minutes is None:
        return epochs
    return max(1, min(epochs, int(60 * minutes * _TRAINING_SHARE * images_per_second / num_train)))


def recovery_recipe(
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    epochs: int,
    teacher: Path | None = None,
    lr: float = 5e-4,
    temperature: float = 1.0,
    min_area: float = 0.6,
    frozen_norms: bool = True,
    seed: int = 0,
    balanced: float = 0.0,
) -> Recipe:
    """Return the recipe to recover a changed network: a low learning rate and mild augmentation.

    `teacher` is the bundle for distillation, in addition to the labels; `lr` is for batches of 32. The initial weights
    are a candidate too, so that the result is never worse on the validation split. The correction for class
    frequencies, the config's `balanced`, is kept, whatever method it came from.
    """
    batch_size = min(64 if len(dataset.train) >= 2000 else 32, max(2, len(dataset.train)))
    view: Literal["crop", "shift", "none"] = "crop" if dataset.mirror_safe else "shift"
    if dataset.sound is not None:  # a random window is drawn of each
        view = "none"
    return Recipe(
        name="recovery",
        train=Train(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr * (batch_size / 32) ** 0.5,
            ema_decay=0.99,
            frozen_norms=frozen_norms,
            start_counts=True,
            seed=seed,
        ),
        model=Model(dropout=0.0, zero_classifier=False),
        optimizer=Optimizer(weight_decay=0.01),
        schedule=Schedule(warmup=0.1),
        augment=Augment(view=view, min_area=min_area, flip=dataset.mirror_safe, interpolation=preprocess.interpolation),
        loss=Loss(
            label_smoothing=0.0,
            teacher=str(teacher) if teacher else "",
            teacher_weight=_TEACHER_WEIGHT if teacher else 0.5,
            temperature=temperature,
        ),
        balance=Balance(method="adjust", strength=balanced) if balanced else Balance(),
    )


def network_of(subject: Subject, *, spec: ArchSpec | None = None) -> Network | DenseNetwork:
    """Return the subject's network in evaluation mode, or that of another `spec` with the same weights."""
    network = build_network(spec or subject.config.arch)
    load_arrays_(network, subject.state, where="the network to compress")
    return network.eval()


def recover(
    network: Network | DenseNetwork,
    config_of: Subject,
    dataset: Dataset,
    recipe: Recipe,
    *,
    folder: Path,
    listener: Listener | None = None,
    deadline_seconds: float | None = None,
) -> dict[str, np.ndarray]:
    """Train `network` in `folder`, or resume the training there, and return the best weights.

    Only the weights of the spec are returned, as arrays under their names, without the ranges of fake quantization.
    """
    found = train(
        network,
        dataset,
        recipe,
        config_of.config.preprocess,
        folder=folder,
        listener=listener,
        deadline_seconds=deadline_seconds,
    )
    names = set(config_of.state)
    return {name: array for name, array in state_arrays(found.model).items() if name in names}


def save_teacher(subject: Subject, folder: Path) -> Path:
    """Write the network into `folder`, once, as a teacher for distillation."""
    if not (folder / "config.json").is_file():
        save_bundle(folder, dataclasses.replace(subject.config, deployed="onnx"), subject.state)
    return folder
