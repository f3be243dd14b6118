"""The images that calibrate, check and score exports."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.split_file import read_split
from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess
from effnet.data.view.evaluation import eval_view_at
from effnet.errors import DataError, ImageError, InputError
from effnet.measurement.answers import predict_split
from effnet.measurement.paired import share_right
from effnet.runtimes.predictor import Predictor
from effnet.weights.labels import choose_images, list_for, numbered, read_as_fitted

CHECKED = 64
# Calibration of int8 needs no more images: NNCF and ONNX Runtime take 100 to 300.
CALIBRATED = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """`check` is uint8 [images, R, R, C], random if `random`; `calibration` has the same form, or is None.

    `scored` are the labelled images to score exports on and `part` is the name of their split; `unscored` says why
    there are none although there are data. `judged` decides whether a reduced-precision export is accepted: the
    validation split, as in fit and quantize, or `scored` without one.
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
    """Return the images of `data` for the bundle `folder`: `calibrated` to calibrate, some to check, and all to score.

    Data that the bundle was fitted on are split as they were then, so that no test image was trained on. Of other data
    all are scored or, if some are needed for calibration, those of a test split. The choice of calibration images
    depends only on `seed` and the labels. Without data, the check uses random images. Raises DataError if no image can
    be read or the calibration images are all of one class, InputError if calibration is needed and there are no data.
    """
    preprocess = config.preprocess
    if data is None:
        if calibrated:
            raise InputError(
                "int8 is calibrated on training images; give the data that the bundle was trained on: --data DATA"
            )
        shape = (CHECKED, *preprocess.size, preprocess.channels)
        return Images(check=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), random=True)
    if calibrated:
        dataset = read_as_fitted(data, folder=folder, config=config)
        parts = (dataset.train, dataset.val, dataset.test)
        train, val, test = (numbered(split, dataset.class_names, config, kind=dataset.label_kind) for split in parts)
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
        # Images of other classes cannot be scored, but they can show whether two runtimes agree.
        listing = list_for(data, config, read_split(folder))
        sources = [source for part in listing.parts.values() for source in part.sources]
        unlabelled = Split(sources=sources, labels=np.zeros(len(sources), np.int64))
        return Images(check=_check(unlabelled, preprocess), random=False, unscored=str(error))
    try:
        judged = choose_images(data, folder=folder, config=config, part="val").split
    except DataError:  # unsplit data that the bundle was not fitted on
        judged = chosen.split
    return Images(
        check=_check(chosen.split, preprocess), random=False, scored=chosen.split, part=chosen.part, judged=judged
    )


def _check(split: Split, preprocess: Preprocess) -> np.ndarray:
    return _load(split, np.arange(len(split)), preprocess, most=CHECKED)[0]


def calibration_images(
    train: Split, preprocess: Preprocess, *, class_names: Sequence[str], count: int = CALIBRATED, seed: int = 0
) -> np.ndarray:
    """Return `count` readable training images, preprocessed: uint8 [images, R, R, C].

    Every class gives the same number of images, as far as it has them; for several outputs they are drawn at random.
    The choice depends only on `seed` and the labels. Raises DataError if no image can be read or, with several classes,
    all images are of one: their ranges would not suit the others.
    """
    several = train.labels.ndim > 1 or train.labels.dtype == object  # of several outputs, of boxes, of masks
    rng, labels = np.random.default_rng(seed), np.zeros(len(train), np.int64) if several else train.labels
    shuffled = [rng.permutation(np.flatnonzero(labels == number)) for number in np.unique(labels)]
    ranks = np.concatenate([np.arange(len(places)) for places in shuffled] or [labels])
    order = np.concatenate(shuffled or [labels])[np.argsort(ranks, kind="stable")]
    images, kept = _load(train, order, preprocess, most=count)
    drawn = set(labels[kept].tolist())
    if not several and len(drawn) < 2 <= len(class_names):
        remedy = "raise --images" if count == 1 else "give the data that the network was trained on"
        raise DataError(
            f"int8 must be calibrated on images of at least two classes; the {len(images)} drawn are all of "
            f"{class_names[drawn.pop()]!r}: {remedy}"
        )
    return images


def _load(split: Split, order: np.ndarray, preprocess: Preprocess, *, most: int) -> tuple[np.ndarray, list[int]]:
    """Return the first `most` readable images in this order, preprocessed, and their indices."""
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
    """Return the share of right answers to the readable images of `split`, and the number of those images."""
    is_right = predictor.config.task_record.right
    assert is_right is not None
    rows, indices = predict_split(predictor, split, progress=progress)
    return share_right(is_right(rows, split.labels[indices])), len(indices)
