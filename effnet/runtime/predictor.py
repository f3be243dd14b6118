"""Prediction with a bundle: Pillow, numpy and one runtime, no torch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np

from effnet.data.decode import decoded_image
from effnet.data.preprocess import resize_and_crop
from effnet.errors import BundleError, DataError, InputError
from effnet.runtime.config import CONFIG, ModelConfig, read_config
from effnet.runtime.engines import Engine, open_engine
from effnet.runtime.formats import find_format

UNKNOWN = "unknown"

Picture = str | os.PathLike[str] | bytes | np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The most probable classes of one picture, best first.

    `known` is false where even the best is less probable than the threshold: the picture may be of no class at all.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    known: bool = True

    @property
    def label(self) -> str:
        """The most probable class, or "unknown"."""
        return self.labels[0] if self.known else UNKNOWN


class Predictor:
    """A bundle ready to predict; `effnet.load` makes it. Its file is opened at the first prediction.

    `format` names the export that predicts (effnet.runtime.formats); by default the bundle's own, `config.deployed`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, threads: int = 1, format: str | None = None) -> None:  # noqa: A002
        self.folder = Path(folder)
        self.threads = threads
        self.config: ModelConfig = read_config(folder)
        self.format = find_format(format or self.config.deployed)
        self._turn = Lock()

    @cached_property
    def engine(self) -> Engine:
        """The bundle's file in its runtime; raises BundleError where the file does not match the config."""
        path, config = self.folder / self.format.file, self.config
        if not config.class_names:
            raise BundleError(
                f"a model needs a classifier to predict; {self.folder} has none: `effnet fit --weights` makes one"
            )
        engine = open_engine(path, threads=self.threads)
        wanted = (config.preprocess.resolution, config.preprocess.channels, len(config.class_names))
        found = (engine.side, engine.channels, engine.classes)
        if found != wanted:
            raise BundleError(
                f"{path} must map {_maps(*wanted)}, as {CONFIG} says; it maps {_maps(*found)}. "
                "`effnet export` writes it anew"
            )
        return engine

    def prepare(self, picture: Picture) -> np.ndarray:
        """Returns one picture as the model takes it: uint8 [resolution, resolution, channels].

        Takes a path, the bytes of a file, or a decoded uint8 array [height, width, channels].
        Raises ImageError where it cannot be decoded.
        """
        preprocess = self.config.preprocess
        if isinstance(picture, np.ndarray):
            expected = f"uint8 [height, width, {preprocess.channels}]"
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != preprocess.channels:
                raise DataError(f"a picture as an array must be {expected}; got {picture.dtype} {picture.shape}")
            return resize_and_crop(picture, preprocess)
        with decoded_image(picture, channels=preprocess.channels) as image:
            return resize_and_crop(image, preprocess)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 [batch, classes] for prepared pictures, uint8 [batch, resolution, resolution, channels].

        It may be called from several threads; only ONNX Runtime computes for them at the same time.
        """
        with self._turn:
            engine = self.engine
            if self.format.runtime != "onnxruntime":
                return engine.run(images)
        return engine.run(images)

    def chosen_threshold(self, asked: float | None = None) -> float:
        """Returns the probability below which a picture is "unknown": as asked, the bundle's own, or 0 for never."""
        if asked is not None and not 0 <= asked <= 1:
            raise InputError(f"the threshold must be a probability from 0 to 1; got {asked}")
        return (self.config.threshold or 0.0) if asked is None else asked

    def predict(
        self, pictures: Iterable[Picture], *, top: int = 5, batch: int = 16, threshold: float | None = None
    ) -> list[Prediction]:
        """Returns the `top` classes of each picture, in order; see `prepare` for what a picture can be.

        `threshold` is the probability below which a picture is "unknown": the bundle's own by default, 0 for never.
        """
        if isinstance(pictures, str | bytes | os.PathLike | np.ndarray):
            raise DataError("predict takes a list of pictures; got one: wrap it in a list")
        if batch < 1:
            raise InputError(f"predict takes batches of at least 1 picture; got {batch}")
        threshold = self.chosen_threshold(threshold)
        return [
            to_prediction(row, self.config.class_names, top=top, threshold=threshold)
            for images in _batches(map(self.prepare, pictures), batch)
            for row in self.probabilities(np.stack(images))
        ]


def _maps(side: int, channels: int, classes: int) -> str:
    return f"image [{side}, {side}, {channels}] to probabilities [{classes}]"


def to_prediction(
    probabilities: np.ndarray, class_names: Sequence[str], *, top: int, threshold: float = 0.0
) -> Prediction:
    """Returns the `top` most probable classes of one row [classes], and whether the best reaches `threshold`."""
    best = np.argsort(-probabilities, kind="stable")[: max(1, top)]
    return Prediction(
        labels=tuple(class_names[i] for i in best),
        probabilities=tuple(float(probabilities[i]) for i in best),
        known=float(probabilities[best[0]]) >= threshold,
    )


def _batches(images: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while chunk := list(islice(images, size)):
        yield chunk


def load(folder: str | os.PathLike[str], *, threads: int = 1, format: str | None = None) -> Predictor:  # noqa: A002
    """Opens the bundle in `folder` for prediction with `threads` threads (0: one a core), without torch.

    `format` names one of its exports, such as "onnx-int8"; by default it is the one that the bundle was proven with.
    Raises BundleError where it is no bundle, InputError where there is no such format.
    """
    return Predictor(folder, threads=threads, format=format)
