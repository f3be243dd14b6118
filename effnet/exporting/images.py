"""The images that exports are made, checked and scored with."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import Split, list_source
from effnet.data.eval_view import eval_view_at
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError, ImageError, InputError
from effnet.measure.answers import predict_split
from effnet.runtime.config import ModelConfig
from effnet.runtime.predictor import Predictor
from effnet.weights.labels import choose_images, numbered, read_as_fitted

CHECKED = 64
# Ranges of int8 need no more images: NNCF and ONNX Runtime take 100 to 300.
CALIBRATED = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """`check` is uint8 [images, R, R, C], random where `random`; `calibration` likewise, None where there is none.

    `scored` are the labelled images to score exports on and `part` which they are; `unscored` says why there are none
    though there are data. `judged` decides whether fewer bits keep the accuracy: the validation split, as in fit and
    quantize, or what is scored if there is none.
    """

    check: np.ndarray
    random: bool
    calibration: np.ndarray | None = None
    scored: Split | None = None
    part: str = ""
    judged: Split | None = None
    unscored: str = ""


def gather(
    config: ModelConfig,
    data: str | os.PathLike[str] | None,
    *,
    folder: str | os.PathLike[str],
    calibrated: int = 0,
    seed: int = 0,
) -> Images:
    """Return the images of `data` for the bundle `folder`: `calibrated` ones, those to score, and some to check.

    Data that the bundle was fitted on are split as they were then, so that none of the test images was trained on. Of
    other data all are scored or, where some must calibrate, those of a test split. Which training images calibrate
    depends on `seed` and the labels alone. Without data random images are for checking.
    Raises DataError where no image can be read or where those that calibrate are all of one class, InputError where
    images must calibrate and there are no data.
    """
    preprocess = config.preprocess
    if data is None:
        if calibrated:
            raise InputError(
                "int8 finds the ranges of its numbers on training images; give those that the bundle was trained on: "
                "--data DATA"
            )
        shape = (CHECKED, preprocess.resolution, preprocess.resolution, preprocess.channels)
        return Images(check=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), random=True)
    if calibrated:
        dataset = read_as_fitted(data, folder=folder, config=config)
        parts = (dataset.train, dataset.val, dataset.test)
        train, val, test = (numbered(split, dataset.class_names, config) for split in parts)
        return Images(
            check=_check(test, preprocess),
            random=False,
            calibration=calibration_images(
                train, preprocess, class_names=config.class_names, count=calibrated, seed=seed
            ),
            scored=test,
            part="test",
            judged=val if len(val) else test,
        )
    try:
        chosen = choose_images(data, folder=folder, config=config)
    except DataError as error:
        # Images of other things cannot be scored, but they can show whether two runtimes agree.
        sources = [source for part in list_source(data).parts.values() for source in part.sources]
        unlabelled = Split(sources=sources, labels=np.zeros(len(sources), np.int64))
        return Images(check=_check(unlabelled, preprocess), random=False, unscored=str(error))
    try:
        judged = choose_images(data, folder=folder, config=config, part="val").split
    except DataError:  # data that the bundle was not fitted on, and that are not split
        judged = chosen.split
    return Images(
        check=_check(chosen.split, preprocess), random=False, scored=chosen.split, part=chosen.part, judged=judged
    )


def _check(split: Split, preprocess: Preprocess) -> np.ndarray:
    return _load(split, np.arange(len(split)), preprocess, most=CHECKED)[0]


def calibration_images(
    train: Split, preprocess: Preprocess, *, class_names: Sequence[str], count: int = CALIBRATED, seed: int = 0
) -> np.ndarray:
    """Return `count` readable training images, uint8 [images, R, R, C], as preprocessing makes them.

    Every class gives as many as any other, as far as it has them; which, depends on `seed` and the labels alone. Raises
    DataError where no image can be read or, of more classes, all are of one: ranges found on them would not suit the
    others.
    """
    rng, labels = np.random.default_rng(seed), train.labels
    shuffled = [rng.permutation(np.flatnonzero(labels == number)) for number in np.unique(labels)]
    ranks = np.concatenate([np.arange(len(places)) for places in shuffled] or [labels])
    order = np.concatenate(shuffled or [labels])[np.argsort(ranks, kind="stable")]
    images, kept = _load(train, order, preprocess, most=count)
    drawn = set(labels[kept].tolist())
    if len(drawn) < 2 <= len(class_names):
        remedy = "ask for more images (--images)" if count == 1 else "give the data that the network was trained on"
        raise DataError(
            f"images of at least two classes must calibrate int8; the {len(images)} that were drawn are all of "
            f"{class_names[drawn.pop()]!r}: {remedy}"
        )
    return images


def _load(split: Split, order: np.ndarray, preprocess: Preprocess, *, most: int) -> tuple[np.ndarray, list[int]]:
    """Return the first `most` readable images in this order as the model takes them, and their indices."""
    images: list[np.ndarray] = []
    kept: list[int] = []
    for index in map(int, order):
        try:
            images.append(eval_view_at(split, index, preprocess))
            kept.append(index)
        except ImageError:
            continue
        if len(images) == most:
            break
    if not images:
        raise DataError("an export needs at least one image that can be read; none can")
    return np.stack(images), kept


def accuracy_of(predictor: Predictor, split: Split, *, progress: Progress | None = None) -> tuple[float, int]:
    """Return the share of the readable images of `split` that the export names right, and how many those are."""
    rows, indices = predict_split(predictor, split, progress=progress)
    return float((rows.argmax(1) == split.labels[indices]).mean()), len(indices)
