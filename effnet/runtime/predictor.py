"""Prediction with a bundle: Pillow, numpy and one runtime, no torch."""

import ctypes
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from effnet.data.decode import convert_pillow, decoded_image
from effnet.data.preprocess import resize_and_crop
from effnet.data.value_range import to_uint8
from effnet.errors import BundleError, DataError, InputError
from effnet.runtime.config import CONFIG, ModelConfig, read_config, read_digests
from effnet.runtime.engines import FRAGILE, Engine, open_engine, preload
from effnet.runtime.formats import find_format
from effnet.runtime.model_file import read_model, sha256

UNKNOWN = "unknown"

Picture = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
_PICTURES = "a path, the bytes of a file, a Pillow image or a uint8 array [height, width, channels]"

# What effnet's own files return differs from 1 by a millionth, in 8 bits too: all of them compute softmax in 32 bits.
# bfloat16, where a processor has it, rounds each probability to 0.4 %.
_SUM_TOLERANCE, _RANGE_TOLERANCE = 2e-2, 1e-3


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
    It may be pickled, and used after a fork: another process opens the bundle's files for itself. `say` is told, once,
    what is assumed of images of more than 8 bits where the bundle has no value range; by default it is a warning.
    """

    def __init__(self, folder: str | os.PathLike[str], *, threads: int = 1, format: str | None = None) -> None:  # noqa: A002
        self.folder = Path(folder)
        self.threads = threads
        self.config: ModelConfig = read_config(folder)
        self.format = find_format(format or self.config.deployed)
        self.say: Callable[[str], None] = warnings.warn
        self._heard = False
        self._start()
        _alive.add(self)

    def _start(self) -> None:
        self._turn, self._opening = Lock(), Lock()
        self._engine: Engine | None = None

    def __reduce__(self) -> tuple[object, tuple[str, int, str]]:
        return _reopened, (os.path.abspath(self.folder), self.threads, self.format.name)

    def _after_fork(self) -> None:
        """Forget the parent's engine and locks: its threads are not in this process, and one may have held a lock."""
        if self._engine is not None:
            # Taken down here, or at this process's end, it would wait for its threads. So it is never taken down.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._engine))
        self._start()

    @property
    def engine(self) -> Engine:
        """The bundle's file in its runtime; raises BundleError where the file does not match the config."""
        if self._engine is None:
            with self._opening:
                self._engine = self._engine or self._open()
        return self._engine

    def hear(self, assumed: str) -> None:
        """Says, the first time, what `decoded_image` has assumed of an image; from any thread."""
        with self._opening:
            first, self._heard = not self._heard, True
        if first:
            self.say(assumed)

    def _open(self) -> Engine:
        path, config = self.folder / self.format.file, self.config
        if not config.class_names:
            raise BundleError(
                f"a model needs a classifier to predict; {self.folder} has none: `effnet fit --weights` makes one"
            )
        digests = read_digests(self.folder)
        if self.format.runtime in FRAGILE:
            from effnet.runtime.engines.probe import try_first  # with what starts processes, which takes its time

            preload(self.format.runtime)  # that it is not installed is better said here
            digests[path.name] = sha256(read_model(path, digests))
            try_first(path, self.format.runtime, digests[path.name])
        engine = open_engine(path, threads=self.threads, digests=digests)
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

        Takes a path, the bytes of a file, an image of Pillow's, or a decoded uint8 array [height, width, channels];
        where the bundle has a value range, an array of other integers or of real numbers as well.
        Raises ImageError where it cannot be decoded, InputError for anything else.
        """
        preprocess = self.config.preprocess
        channels, value_range = preprocess.channels, preprocess.value_range
        if isinstance(picture, np.ndarray):
            if value_range is not None and picture.dtype != np.uint8 and picture.dtype.kind in "uif":
                picture = to_uint8(picture, picture.dtype.name, value_range)
            expected = f"uint8 [height, width, {preprocess.channels}]"
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != preprocess.channels:
                raise DataError(f"a picture as an array must be {expected}; got {picture.dtype} {picture.shape}")
            return resize_and_crop(picture, preprocess)
        if isinstance(picture, Image.Image):
            return resize_and_crop(
                convert_pillow(picture, channels=channels, value_range=value_range, heard=self.hear), preprocess
            )
        if isinstance(picture, str | bytes | os.PathLike):
            with decoded_image(picture, channels=channels, value_range=value_range, heard=self.hear) as image:
                return resize_and_crop(image, preprocess)
        raise InputError(f"an image must be {_PICTURES}; got {type(picture).__name__}")

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 [batch, classes] for prepared pictures, uint8 [batch, resolution, resolution, channels].

        It may be called from several threads; only ONNX Runtime computes for them at the same time. Raises BundleError
        where the model fails or returns what are no probabilities.
        """
        engine = self.engine
        if self.format.runtime == "onnxruntime":
            rows = engine.run(images)
        else:
            with self._turn:
                rows = engine.run(images)
        _check_probabilities(rows, self.folder / self.format.file)
        return rows

    def chosen_threshold(self, asked: float | None = None) -> float:
        """Returns the probability below which a picture is "unknown": as asked, the bundle's own, or 0 for never."""
        if asked is not None and not 0 <= asked <= 1:
            raise InputError(f"the threshold must be a probability from 0 to 1; got {asked}")
        return (self.config.threshold or 0.0) if asked is None else asked

    def predict(
        self, pictures: Picture | Iterable[Picture], *, top: int = 5, batch: int = 16, threshold: float | None = None
    ) -> list[Prediction]:
        """Returns the `top` classes of each picture, in order; see `prepare` for what a picture can be.

        One picture that is not in a list gives a list of one. `threshold` is the probability below which a picture is
        "unknown": the bundle's own by default, 0 for never. The model is opened before any picture is read.
        """
        if isinstance(pictures, str | bytes | os.PathLike | Image.Image) or _is_one(pictures):
            pictures = [pictures]
        if not isinstance(pictures, Iterable):
            raise InputError(f"predict takes {_PICTURES}, or a list of these; got {type(pictures).__name__}")
        if batch < 1:
            raise InputError(f"predict takes batches of at least 1 picture; got {batch}")
        threshold = self.chosen_threshold(threshold)
        _ = self.engine
        return [
            to_prediction(row, self.config.class_names, top=top, threshold=threshold)
            for images in _batches(map(self.prepare, pictures), batch)
            for row in self.probabilities(np.stack(images))
        ]


# The predictors of this process, for a fork.
_alive: weakref.WeakSet[Predictor] = weakref.WeakSet()


def _after_fork() -> None:
    for predictor in list(_alive):
        predictor._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _reopened(folder: str, threads: int, name: str) -> Predictor:
    return Predictor(folder, threads=threads, format=name)


def _is_one(pictures: object) -> bool:
    """Return whether an array is one image: a batch of them is iterated over."""
    return isinstance(pictures, np.ndarray) and pictures.ndim != 4


def _check_probabilities(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless each row of float32 [batch, classes] holds probabilities."""
    low, high = rows.min(initial=0.0), rows.max(initial=0.0)
    # Written so that NaN fails.
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise BundleError(
            f"{path} must return probabilities, from 0 to 1; it returned {low:.4g} to {high:.4g}: it is damaged or "
            "another model. `effnet export` writes it anew"
        )
    if len(rows) and not np.abs((sums := rows.sum(1)) - 1).max() <= _SUM_TOLERANCE:
        raise BundleError(
            f"{path} must return probabilities, whose sum is 1; theirs lies in {sums.min():.4g}..{sums.max():.4g}: it "
            "is damaged or another model. `effnet export` writes it anew"
        )


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
