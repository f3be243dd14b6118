"""The answers to a set of images, and properties of these images; kept in a file as the reference of later ones."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import read_digests
from effnet.data.datasets import Split
from effnet.data.images.decode import image_header
from effnet.data.sources.source import encoded
from effnet.data.view.evaluation import eval_view_at
from effnet.errors import DataError, InputError
from effnet.measurement.robustness.formats import check_classifier
from effnet.runtimes.pipeline import run_images
from effnet.runtimes.predictor import Predictor
from effnet.system.files import written_whole
from effnet.system.machine import usable_cores

REFERENCE = "reference.npz"
"""The file of a bundle in which monitor looks for the reference, as `effnet monitor --save` writes it."""
PROPERTIES = ("brightness", "contrast", "sharpness", "megapixels", "aspect ratio")
"""The properties of an image: the first three of what the network sees, in 0..1, the others of the file."""


# The properties that are computed of the prepared image.
_LOOKS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Probabilities, float32 [images, classes], and PROPERTIES, float64 [images, 5], of the readable images.

    `unknown` says which are answered "unknown", bool [images]; None if the model always answers.
    """

    probabilities: np.ndarray
    properties: np.ndarray
    unknown: np.ndarray | None = None
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.probabilities)


def sample_of(predictor: Predictor, split: Split, *, progress: Callable[[int, int], None] | None = None) -> Sample:
    """Return the bundle's answers to a split, and the properties of its images.

    Raises InputError for another task than classification, DataError if there is no readable image.
    """
    check_classifier(predictor)
    preprocess = predictor.config.preprocess
    _ = predictor.engine

    def compute(images: np.ndarray) -> np.ndarray:
        return np.concatenate([_looks(images), predictor.outputs(images, scored=True)], axis=1)

    rows, found = run_images(
        range(len(split)),
        prepare=lambda index: eval_view_at(split, index, preprocess, warn=predictor.warn_once),
        compute=compute,
        workers=usable_cores(),
        progress=progress,
    )
    if not rows:
        raise DataError("there must be readable images; there are none")
    whole = np.stack(rows)
    sides = np.array([_sides(split.sources[index]) for index in found])
    shapes = np.column_stack([sides.prod(1) / 1e6, sides[:, 0] / sides[:, 1]])
    looks, answers = whole[:, :_LOOKS], whole[:, _LOOKS:]
    return Sample(
        probabilities=answers[:, : len(predictor.config.class_names)].astype(np.float32),
        properties=np.concatenate([looks, shapes], axis=1).astype(np.float64),
        unknown=_unknown(answers, predictor),
        unreadable=len(split) - len(rows),
    )


def _unknown(rows: np.ndarray, predictor: Predictor) -> np.ndarray | None:
    """Return which of these outputs, with the score if the file returns one, are answered "unknown"."""
    config, threshold = predictor.config, predictor.chosen_threshold()
    if threshold is None:
        assert config.known is not None
        return None if config.known.threshold is None else np.array([not config.known.knows(row[-1]) for row in rows])
    return rows[:, : len(config.class_names)].max(1) < threshold if threshold else None


def _looks(images: np.ndarray) -> np.ndarray:
    """Return brightness, contrast and sharpness [batch, 3] of prepared images, uint8 [batch, R, R, C].

    They are the mean, the standard deviation, and the mean difference of neighbouring pixels, as shares of 255.
    """
    grey = images.mean(3, dtype=np.float32) / 255
    if min(grey.shape[1:]) < 2:
        return np.stack([grey.mean((1, 2)), grey.std((1, 2)), np.zeros(len(grey), np.float32)], axis=1)
    across, down = (np.abs(np.diff(grey, axis=axis)).mean((1, 2)) for axis in (2, 1))
    return np.stack([grey.mean((1, 2)), grey.std((1, 2)), (across + down) / 2], axis=1)


def _sides(source: Any) -> tuple[int, int]:
    """Return width and height of a stored image."""
    if isinstance(source, np.ndarray):
        return source.shape[1], source.shape[0]
    header = image_header(encoded(source))
    return header.width, header.height


def save_sample(sample: Sample, path: Path, *, predictor: Predictor) -> None:
    """Write a sample to an .npz file, whole or not at all, with the names of the classes and the digest of the model.

    Raises InputError if the name of the file does not end in .npz.
    """
    if path.suffix != ".npz":
        raise InputError(f"a reference must be a file name that ends in .npz; got {path}")
    with written_whole(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(
            file,
            probabilities=sample.probabilities,
            properties=sample.properties,
            unknown=np.empty(0, bool) if sample.unknown is None else sample.unknown,
            class_names=np.array(predictor.config.class_names),
            model=np.array(_digest(predictor)),
        )


def read_sample(path: str | os.PathLike[str], *, predictor: Predictor) -> Sample:
    """Return the sample in a file of `save_sample`; raise InputError if it is none of this model."""
    again = f"`effnet monitor {predictor.folder} DIR --reference DATA --save {path}` writes it again"
    try:
        with np.load(path, allow_pickle=False) as data:
            names, model = data["class_names"].tolist(), str(data["model"])
            probabilities, properties, unknown = (data[key] for key in ("probabilities", "properties", "unknown"))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"a reference must be a file of `effnet monitor --save`; {path} is not: {again}") from error
    if tuple(names) != predictor.config.class_names or model != _digest(predictor):
        raise InputError(f"{path} must hold the answers of this model, {predictor.folder}; it is of another: {again}")
    good = probabilities.shape == (len(probabilities), len(names)) and len(probabilities)
    good = good and properties.shape == (len(probabilities), len(PROPERTIES))
    if not good or unknown.dtype != bool or unknown.shape not in ((0,), (len(probabilities),)):
        raise InputError(f"{path} must hold a row for each image; it is damaged: {again}")
    return Sample(probabilities=probabilities, properties=properties, unknown=unknown if unknown.size else None)


def _digest(predictor: Predictor) -> str:
    return read_digests(predictor.folder).get(predictor.format.file, "")


def split_of(paths: Sequence[str]) -> Split:
    """Return unlabelled images as a split; their labels are 0 and mean nothing."""
    return Split(sources=list(paths), labels=np.zeros(len(paths), np.int64))
