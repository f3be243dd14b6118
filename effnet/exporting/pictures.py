"""The pictures that exports are made, checked and scored with."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import Split, loaded_image, read_dataset
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.errors import DataError, ImageError, InputError
from effnet.measure.answers import predict_split
from effnet.runtime.config import ModelConfig
from effnet.runtime.predictor import Predictor
from effnet.weights.labels import labelled_splits

CHECKED = 64
# Ranges of int8 need no more pictures: NNCF and ONNX Runtime take 100 to 300.
CALIBRATED = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """`check` is uint8 [pictures, R, R, C], random where `random`; `calibration` likewise, None where there is none.

    `test` is the labelled test split; `unscored` says why there is none though there are data. `judged` is what decides
    whether fewer bits keep the accuracy: the validation split, as in fit and quantize, or the test split without one.
    """

    check: np.ndarray
    random: bool
    calibration: np.ndarray | None = None
    test: Split | None = None
    judged: Split | None = None
    unscored: str = ""


def gather(config: ModelConfig, data: str | os.PathLike[str] | None, *, calibrated: int = 0, seed: int = 0) -> Pictures:
    """Returns the pictures of `data`: `calibrated` ones of the training split, the test split, and some of it to check.

    Data without splits are split as the bundle's own were, so that none of the test pictures was trained on. Which
    training pictures calibrate depends on `seed` and the labels alone. Without data random pictures are for checking.
    Raises DataError where no picture can be read or where those that calibrate are all of one class, InputError where
    pictures must calibrate and there are no data.
    """
    preprocess = config.preprocess
    if data is None:
        if calibrated:
            raise InputError(
                "int8 finds the ranges of its numbers on training pictures; give those that the bundle was trained on: "
                "--data DATA"
            )
        shape = (CHECKED, preprocess.resolution, preprocess.resolution, preprocess.channels)
        return Pictures(check=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), random=True)
    try:
        splits = labelled_splits(data, config=config)
    except DataError as error:
        if calibrated:
            raise
        # Pictures of other things cannot be scored, but they can show whether two runtimes agree.
        test = read_dataset(data, seed=config.split_seed or 0, channels=preprocess.channels).test
        check, _ = _load(test, np.arange(len(test)), preprocess, most=CHECKED)
        return Pictures(check=check, random=False, unscored=str(error))
    check, _ = _load(splits["test"], np.arange(len(splits["test"])), preprocess, most=CHECKED)
    calibration = None
    if calibrated:
        calibration = calibration_images(
            splits["train"], preprocess, class_names=config.class_names, count=calibrated, seed=seed
        )
    judged = splits["val"] if len(splits["val"]) else splits["test"]
    return Pictures(check=check, random=False, calibration=calibration, test=splits["test"], judged=judged)


def calibration_images(
    train: Split, preprocess: Preprocess, *, class_names: Sequence[str], count: int = CALIBRATED, seed: int = 0
) -> np.ndarray:
    """Returns `count` readable training pictures, uint8 [pictures, R, R, C], as preprocessing makes them.

    Every class gives as many as any other, as far as it has them; which, depends on `seed` and the labels alone. Raises
    DataError where no picture can be read or, of more classes, all are of one: ranges found on them would not suit the
    others.
    """
    rng, labels = np.random.default_rng(seed), train.labels
    shuffled = [rng.permutation(np.flatnonzero(labels == number)) for number in np.unique(labels)]
    ranks = np.concatenate([np.arange(len(places)) for places in shuffled] or [labels])
    order = np.concatenate(shuffled or [labels])[np.argsort(ranks, kind="stable")]
    images, kept = _load(train, order, preprocess, most=count)
    drawn = set(labels[kept].tolist())
    if len(drawn) < 2 <= len(class_names):
        remedy = "ask for more pictures (--images)" if count == 1 else "give the data that the network was trained on"
        raise DataError(
            f"pictures of at least two classes must calibrate int8; the {len(images)} that were drawn are all of "
            f"{class_names[drawn.pop()]!r}: {remedy}"
        )
    return images


def _load(split: Split, order: np.ndarray, preprocess: Preprocess, *, most: int) -> tuple[np.ndarray, list[int]]:
    """Returns the first `most` readable pictures in this order as the model takes them, and their indices."""
    images: list[np.ndarray] = []
    kept: list[int] = []
    for index in map(int, order):
        try:
            with loaded_image(split, index, channels=preprocess.channels) as image:
                images.append(resize_and_crop(image, preprocess))
            kept.append(index)
        except ImageError:
            continue
        if len(images) == most:
            break
    if not images:
        raise DataError("an export needs at least one picture that can be read; none can")
    return np.stack(images), kept


def accuracy_of(predictor: Predictor, split: Split, *, progress: Progress | None = None) -> tuple[float, int]:
    """Returns the share of the readable pictures of `split` that the export names right, and how many those are."""
    rows, indices = predict_split(predictor, split, progress=progress)
    return float((rows.argmax(1) == split.labels[indices]).mean()), len(indices)
