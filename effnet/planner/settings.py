"""Settings of a training run, from the data set and the time limit."""

import dataclasses
import math
from typing import Literal

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.data.order import epoch_order
from effnet.data.preprocess import Preprocess
from effnet.data.view.evaluation import eval_image_at
from effnet.errors import ImageError
from effnet.planner.search import TrainingNeed
from effnet.planner.timetable import MOST_INT8, PRUNING_SHARE, Pace, clock_words
from effnet.training.memory.predict import training_memory
from effnet.training.recipe.schema import Augment, Model, Recipe, Train

DEFAULT_MINUTES = 10.0
# Fewer epochs than this train a network from scratch too little to be worth its size.
_LEAST_EPOCHS, _LEAST_VIEWS = 8, 20_000
# How often this number is halved, if no network trains that fast before the deadline.
_HALVINGS = 3
# More epochs than this bring next to nothing.
_MOST_EPOCHS, _MOST_VIEWS = 200, 1_500_000
# The share of the time for training steps; the rest is decoding, validation and checkpoints.
_TRAINING_SHARE = 0.8
# The same if a network is chosen for the time before a deadline: its steps were timed without reading and augmentation.
_PLANNED_SHARE = 0.4
# An upper bound of the multiply-accumulates per second of training on a CPU core or a GPU.
_CORE_MACS, _GPU_MACS = 15e9, 50e12
# The multiply-accumulates per second of a frozen network on one core (Lite0 in benchmarks/transfer.py: images per
# second times 384 million, over the cores), rounded down, and the share of the time that features may take.
_CORE_FEATURE_MACS, _FEATURE_SHARE = 30e9, 0.25
# The share of the time of training, where it ends at a deadline, that one view of each image may take, and where int8
# is reached in it as well.
_HEAD_SHARE, _HEAD_INT8_SHARE = 0.5, 0.8
# Inferences of the validation images, and of as many test images, until there is an int8 file.
_INT8_VIEWS = 4
_SAMPLE = 256
# Number of pixels that are summed at a time.
_PIECE_PIXELS = 2**20
# With fewer epochs of fine-tuning than this, pruning is not worthwhile.
_LEAST_RECOVERY = 3
# Fine-tuning: more epochs only overfit to few images; the learning rate is the head's, for batches of 32. With fewer
# images than these it is smaller in proportion, but at least this share: benchmarks/few_labels.py measures the gain.
MOST_TUNING_EPOCHS, _TUNING_RATE = 30, 1e-3
_FULL_RATE_IMAGES, _LEAST_RATE = 1000, 0.3
_ENOUGH_FOR_STATISTICS = 5000
# Images of at most this side lose their content if much is cropped; if flips change them, they are shifted mildly.
_SMALL_SIDE = 40
# Networks of more blocks than this train better with stochastic depth.
_DEEP = 12
# The share of the machine's memory that training may take.
_MEMORY_SHARE = 0.5


def least_epochs(num_train: int) -> int:
    """Return the least number of epochs for a network."""
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_LEAST_VIEWS / num_train)))


def most_epochs(num_train: int) -> int:
    """Return the largest number of worthwhile epochs."""
    return max(least_epochs(num_train), min(_MOST_EPOCHS, math.ceil(_MOST_VIEWS / num_train)))


def training_need(num_train: int, *, minutes: float, cores: int, gpu: bool, fewer: bool = False) -> TrainingNeed:
    """Return the training speed that a network needs for the least number of epochs within `minutes`.

    With `fewer`, an eighth of these epochs are enough if no network trains faster.
    """
    epochs = least_epochs(num_train)
    speed = epochs * num_train / (60 * minutes * (_PLANNED_SHARE if fewer else _TRAINING_SHARE))
    reason = f"{epochs} epochs in {minutes:.3g} minutes need {speed:.3g}"
    most_macs = (_GPU_MACS if gpu else cores * _CORE_MACS) / speed
    halvings = _HALVINGS if fewer else 0
    return TrainingNeed(images_per_second=speed, most_macs=most_macs, reason=reason, halvings=halvings)


def feature_need(images: int, *, minutes: float, cores: int) -> TrainingNeed:
    """Return the largest backbone whose features of `images` images leave time for the rest."""
    seconds = 60 * minutes * _FEATURE_SHARE
    reason = f"the features of {images} images must take at most {seconds / 60:.3g} minutes"
    return TrainingNeed(images_per_second=0.0, most_macs=cores * _CORE_FEATURE_MACS * seconds / images, reason=reason)


def measured_feature_need(dataset: Dataset, pace: Pace, *, seconds: float, int8_steps: int) -> TrainingNeed:
    """Return how large a backbone may be, at this pace, for one view of each image to leave time for the rest.

    With `int8_steps`, those of the least int8, there must be time for them as well.
    """
    images = len(dataset.train) + len(dataset.val)
    answers, share, most_int8 = images, _HEAD_SHARE, math.inf
    if int8_steps:
        fixed, calibrated = pace.int8(dataset, 0.0, steps=int8_steps), pace.calibrated(dataset)
        most_int8 = _most_macs(MOST_INT8 * seconds - fixed, calibrated + _INT8_VIEWS * len(dataset.val), pace)
        seconds -= fixed
        answers, share = images + calibrated, _HEAD_INT8_SHARE
    seconds = max(0.0, share * seconds)
    most = min(most_int8, _most_macs(seconds - images * pace.read, answers, pace))
    reason = f"the features of {images} images must take at most {clock_words(seconds)}"
    return TrainingNeed(images_per_second=0.0, most_macs=most, reason=reason)


def _most_macs(seconds: float, answers: int, pace: Pace) -> float:
    """Return the MACs of a network whose inference on `answers` images takes `seconds`."""
    return max(0.0, seconds) * pace.cores / (pace.mac * answers) if pace.mac else math.inf


def can_recover(num_train: int, *, minutes: float, images_per_second: float) -> bool:
    """Return whether a pruned network can be fine-tuned long enough, with its teacher, within its share of the time."""
    epochs = 60 * minutes * PRUNING_SHARE * _TRAINING_SHARE * images_per_second / num_train
    return epochs >= _LEAST_RECOVERY


def epochs_in(minutes: float, *, images_per_second: float, num_train: int) -> int:
    """Return the number of epochs that fit into `minutes` at this speed, at most the worthwhile number."""
    possible = 60 * minutes * _TRAINING_SHARE * images_per_second / num_train
    return max(1, min(most_epochs(num_train), int(possible)))


def tuning_seconds(epoch_seconds: float) -> float:
    """Return the seconds into which all worthwhile epochs of fine-tuning fit, of `epoch_seconds` each."""
    return MOST_TUNING_EPOCHS * epoch_seconds / _TRAINING_SHARE


def make_preprocess(dataset: Dataset, *, resolution: int, short_side: int, seed: int) -> Preprocess:
    """Return preprocessing with the mean and standard deviation of a sample of the training images.

    Images much larger than the input lose a twentieth at each edge; small ones are kept whole.
    """
    crop, ones = 1.0 if short_side < 1.25 * resolution else 0.9, (1.0,) * dataset.channels
    view = Preprocess(
        resolution=resolution, crop=crop, mean=ones, std=ones, value_range=dataset.value_range, sound=dataset.sound
    )
    if dataset.sound is not None:
        view = dataclasses.replace(view, mode="squash", crop=1.0)
    mean, std = _pixel_statistics(dataset, view, seed=seed)
    return dataclasses.replace(view, mean=mean, std=std)


def _pixel_statistics(dataset: Dataset, view: Preprocess, *, seed: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.random.default_rng(seed).permutation(len(dataset.train))[:_SAMPLE]
    if dataset.train.blocks is not None:  # of few blocks
        order = epoch_order(len(dataset.train), seed=seed, epoch=0, blocks=dataset.train.blocks)[:_SAMPLE]
    totals = []
    for index in order:
        try:
            with eval_image_at(dataset.train, int(index), view) as image:
                totals.append(_moments(image))
        except ImageError:  # beyond the inspected sample a file may still be damaged
            continue
    first, second = (np.mean([total[i] for total in totals], axis=0) for i in (0, 1))
    std = np.sqrt(np.maximum(second - first**2, 1e-4))
    return tuple(round(float(m), 4) for m in first), tuple(round(float(s), 4) for s in std)


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the values in 0..1 and of their squares [channels]; large images are summed in pieces."""
    flat = image.reshape(-1, image.shape[2])
    sums = np.zeros((2, image.shape[2]))
    for start in range(0, len(flat), _PIECE_PIXELS):
        pixels = flat[start : start + _PIECE_PIXELS].astype(np.float64) / 255
        sums += pixels.sum(0), (pixels**2).sum(0)
    return sums[0] / len(flat), sums[1] / len(flat)


def make_recipe(
    dataset: Dataset, spec: ArchSpec, *, epochs: int, short_side: int, memory_gb: float | None, seed: int
) -> Recipe:
    """Return the recipe for training from scratch: augmentation by the images, batch size by number and memory."""
    batch_size = 64 if len(dataset.train) >= 2000 else 32
    while memory_gb and batch_size > 2 and _step_bytes(spec, batch_size) > _MEMORY_SHARE * memory_gb * 2**30:
        batch_size //= 2
    view: Literal["crop", "shift", "none"]
    if dataset.sound is not None:  # a random window is drawn of each
        view, min_area = "none", 1.0
    elif not dataset.mirror_safe and short_side <= _SMALL_SIDE:
        view, min_area = "shift", 0.35
    else:
        view, min_area = "crop", 0.6 if short_side <= _SMALL_SIDE else 0.3
    return Recipe(
        train=Train(
            epochs=epochs,
            batch_size=batch_size,
            lr=3e-3 * (batch_size / 64) ** 0.5,
            patience=max(12, epochs // 2),
            seed=seed,
        ),
        model=Model(drop_path=0.1 if len(spec.blocks) > _DEEP else 0.0),
        augment=Augment(view=view, min_area=min_area, flip=dataset.mirror_safe),
    )


def _step_bytes(spec: ArchSpec, batch_size: int) -> int:
    """Return the memory of training without the fused kernels, which not every machine has."""
    return training_memory(spec, Recipe(train=Train(batch_size=batch_size))).total


def finetune_recipe(recipe: Recipe, preprocess: Preprocess, *, num_train: int, epochs: int, folded: bool) -> Recipe:
    """Return the recipe for fine-tuning: small learning rates, smaller ones in early layers, mild regularization.

    `recipe` is the one for training from scratch, `preprocess` the preprocessing of the weights. BatchNorm keeps its
    statistics if few images would only blur them, and if it is `folded` away.
    """
    train = dataclasses.replace(
        recipe.train,
        epochs=min(epochs, MOST_TUNING_EPOCHS),
        lr=_TUNING_RATE
        * (recipe.train.batch_size / 32) ** 0.5
        * min(1, max(_LEAST_RATE, num_train / _FULL_RATE_IMAGES)),
        layer_decay=0.7,
        frozen_norms=folded or num_train < _ENOUGH_FOR_STATISTICS,
        start_counts=True,
        patience=max(6, epochs // 3),
    )
    return dataclasses.replace(
        recipe,
        name="finetune",
        train=train,
        model=dataclasses.replace(recipe.model, dropout=0.2),
        optimizer=dataclasses.replace(recipe.optimizer, weight_decay=0.02),
        schedule=dataclasses.replace(recipe.schedule, warmup=0.2),
        augment=dataclasses.replace(
            recipe.augment, min_area=max(recipe.augment.min_area, 0.4), interpolation=preprocess.interpolation
        ),
    )
