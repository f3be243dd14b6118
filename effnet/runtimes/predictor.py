"""Predict with a bundle: Pillow, numpy and one runtime, no torch."""

import ctypes
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from effnet.bundle.config import ModelConfig, read_config, read_digests
from effnet.bundle.formats import Format
from effnet.bundle.model_file import read_model, sha256
from effnet.bundle.names import CONFIG
from effnet.data.clips.reading import sampled_frames
from effnet.data.clips.record import FRAMES, is_video
from effnet.data.images.decode import fit_channels
from effnet.data.view.evaluation import IMAGES, ImageLike, prepare_image, whole_image
from effnet.errors import BundleError, InputError
from effnet.runtimes.base import Engine
from effnet.runtimes.digests import remedy
from effnet.runtimes.registry import RUNTIMES, deployed_format, features_beside, find_format, open_engine, preload
from effnet.runtimes.results import check_features, check_signature, unit_rows
from effnet.tasks.classification import over_frames
from effnet.tasks.embedding import EMBEDDING
from effnet.tasks.known import SCORE
from effnet.tasks.task import parted

T = TypeVar("T")


class Predictor:
    """A bundle ready to predict, from `effnet.load`. Its file is opened at the first prediction.

    `format` names the export that predicts (effnet.runtimes.registry), by default the bundle's own, `config.deployed`.
    It can be pickled, and used after a fork: another process opens the bundle's files itself. `say` is called once with
    the assumption made for images of more than 8 bits if the bundle has no value range; by default it warns.
    """

    def __init__(self, folder: str | os.PathLike[str], *, threads: int = 1, format: str | None = None) -> None:  # noqa: A002
        self.folder = Path(folder)
        self.threads = threads
        self.config: ModelConfig = read_config(folder)
        self.format = find_format(format) if format else deployed_format(self.config)
        self.say: Callable[[str], None] = warnings.warn
        self._warned = False
        self._start()
        _alive.add(self)

    def _start(self) -> None:
        self._turn, self._opening = Lock(), Lock()
        self._engines: dict[str, Engine] = {}

    def __reduce__(self) -> tuple[object, tuple[str, int, str]]:
        return _reopened, (os.path.abspath(self.folder), self.threads, self.format.name)

    def _after_fork(self) -> None:
        """Forget the parent's engine and locks: its threads are not in this process, and one may have held a lock."""
        for engine in self._engines.values():
            # Destroying it, here or when this process ends, would wait for its threads. So it is never destroyed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
        self._start()

    @property
    def engine(self) -> Engine:
        """The bundle's file, opened in its runtime; raises BundleError if the file does not match the config."""
        return self._opened(self.format)

    def warn_once(self, assumed: str) -> None:
        """Report the assumption made while decoding an image, the first time only; thread-safe."""
        with self._opening:
            first, self._warned = not self._warned, True
        if first:
            self.say(assumed)

    @property
    def features_engine(self) -> Engine:
        """The bundle's file of embeddings in the same runtime; raises BundleError if it is absent or does not match."""
        return self._opened(features_beside(self.format))

    def _opened(self, target: Format) -> Engine:
        if target.name not in self._engines:
            with self._opening:
                if target.name not in self._engines:
                    self._engines[target.name] = self._open(target)
        return self._engines[target.name]

    def _open(self, target: Format) -> Engine:
        path, digests = self.folder / target.file, read_digests(self.folder)
        if target.result == "features":
            self._check_features_file(target, digests)
        elif not self.config.class_names:
            raise BundleError(
                f"a model needs a classifier to predict; {self.folder} has none: `effnet fit --weights` makes one"
            )
        with remedy(self.folder, target):
            if RUNTIMES[target.runtime].fragile:
                from effnet.runtimes.probe import try_first  # imported here because it is slow

                preload(target.runtime)  # fails here if the runtime is not installed
                digests[path.name] = sha256(read_model(path, digests))
                try_first(path, target.runtime, digests[path.name])
            engine = open_engine(path, threads=self.threads, digests=digests)
        check_signature(engine, self.config, path, target)
        known = self.config.known if target.result != "features" and RUNTIMES[target.runtime].scored else None
        if known is not None and not engine.scored:
            raise BundleError(
                f"{path} must return the score of {CONFIG}, {known.method}, as {SCORE}; it does not. `effnet export` "
                "writes it again"
            )
        return engine

    def _check_features_file(self, target: Format, digests: Mapping[str, str]) -> None:
        """Raise BundleError if the file of embeddings is absent, or has no digest in config.json.

        Without a digest it may be of the bundle's earlier weights, which its outputs do not show.
        """
        known = [name for name in target.files if name in digests and (self.folder / name).exists()]
        if len(known) < 1 + len(target.others):
            raise BundleError(
                f"embeddings in {target.runtime} need {target.file}, which {self.folder} lacks for its current "
                f"weights: `effnet export {self.folder} {target.asked}` writes it"
            )

    def prepare(self, image: ImageLike) -> np.ndarray:
        """Return one image, preprocessed for the model: uint8 [resolution, resolution, channels].

        Takes a path, the bytes of a file, a Pillow image, or a decoded uint8 array [height, width, channels], for one
        channel also [height, width]; if the bundle has a value range, also an array of other integers or of floats. A
        large JPEG file is decoded at a reduced size (effnet.data.view.evaluation), a Pillow image at its full size.
        Raises ImageError if it cannot be decoded, InputError for anything else.
        """
        return prepare_image(image, self.config.preprocess, warn=self.warn_once)

    @property
    def scored(self) -> bool:
        """Whether the bundle's score decides which images are unknown, and its file in this format returns it."""
        return self.config.known is not None and self.engine.scored

    def outputs(self, images: np.ndarray, *, scored: bool = False) -> np.ndarray:
        """Return float32 [batch, outputs] for prepared images, uint8 [batch, resolution, resolution, channels].

        Their meaning is that of `config.outputs`: for a classifier, the probability of each class. With `scored` the
        score is one more column, if the file returns one: rows to answer with (`Task.answer`) need it. It can be called
        from several threads; only ONNX Runtime computes for them in parallel. Raises BundleError if the model fails or
        does not return what its task does.
        """
        return self._checked(self._run(self.format, images), scored=scored)

    def _checked(self, rows: np.ndarray, *, scored: bool) -> np.ndarray:
        """Return the rows of an engine, with the score only if it is wanted and the bundle's; check what they are."""
        path = self.folder / self.format.file
        plain = rows[:, : self.engine.classes]
        self.config.task_record.check(plain, path)
        if not self.scored:
            return plain
        if not np.isfinite(rows[:, -1]).all():
            raise BundleError(f"{path} must return finite scores; it is damaged. `effnet export` writes it again")
        return rows if scored else plain

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the `outputs` of a classifier, float32 [batch, classes]; raise InputError for another task."""
        self.must_classify()
        return self.outputs(images)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return how known prepared images are, float32 [batch]: the bundle's score, else the largest probability."""
        self.must_classify()
        rows = self.outputs(images, scored=True)
        found: np.ndarray = rows[:, -1] if self.scored else rows.max(1)
        return found

    def must_classify(self) -> None:
        """Raise InputError unless the bundle is a classifier."""
        if (name := self.config.task_record.output.name) != "probabilities":
            raise InputError(f"a classifier returns probabilities; {self.folder} returns its {name}: call outputs()")

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Return the activation maps of prepared images, float32 [batch, columns, height, width].

        There is one for each class, tag or number, in the order of `outputs`: what each place of the last feature map
        adds to the value before softmax or sigmoid (effnet.runtimes.maps). Raises BundleError if `effnet export --maps`
        has not written the file for them, and otherwise like `outputs`.
        """
        return self.outputs_and_maps(images)[1]

    def outputs_and_maps(self, images: np.ndarray, *, scored: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return `outputs`, which takes `scored`, and `maps`, computed at once."""
        if self.engine.maps is None:
            raise BundleError(
                f"activation maps need a {self.format.file} that returns them; that of {self.folder} does not: "
                f"`effnet export {self.folder} --maps --to {self.format.name}` writes it"
            )
        rows, maps = self._with_turn(self.format, self.engine.run_with_maps, images)
        rows = self._checked(rows, scored=scored)
        if not np.isfinite(maps).all():
            raise BundleError(
                f"{self.folder / self.format.file} must return finite maps; it is damaged. `effnet export` writes it "
                "again"
            )
        return rows, maps

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features before the classifier, float32 [batch, channels], for images as in `outputs`.

        It can be called from several threads, like `outputs`. Raises BundleError if the bundle has no file of
        embeddings, or that file fails or returns numbers that are not finite.
        """
        target = features_beside(self.format)
        rows = self._run(target, images)
        check_features(rows, self.folder / target.file)
        return rows

    @property
    def aligned(self) -> bool:
        """Whether the bundle's own output is an embedding: `effnet align` wrote it."""
        return self.config.output == EMBEDDING

    @property
    def embedding_engine(self) -> Engine:
        """The file of embeddings: the bundle's own if it is aligned, else that of its features."""
        return self.engine if self.aligned else self.features_engine

    @property
    def embedding_width(self) -> int:
        """The length of an embedding."""
        return len(self.config.class_names) if self.aligned else self.config.arch.feature_channels

    def embeddings(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of prepared images, float32 [batch, embedding_width], not of length 1; see `embed`."""
        return self.outputs(images) if self.aligned else self.features(images)

    def _run(self, target: Format, images: np.ndarray) -> np.ndarray:
        return self._with_turn(target, self._opened(target).run, images)

    def _with_turn(self, target: Format, run: Callable[[np.ndarray], T], images: np.ndarray) -> T:
        """Run images, one thread after the other if the runtime needs it."""
        if RUNTIMES[target.runtime].parallel:
            return run(images)
        with self._turn:
            return run(images)

    def chosen_threshold(self, asked: float | None = None) -> float | None:
        """Return the probability below which an image is "unknown": `asked`, else the bundle's, else 0 for never.

        None if each of several outputs has its own, or if the bundle's score decides instead, which needs the file
        that returns it.
        """
        if asked is not None and not 0 <= asked <= 1:
            raise InputError(f"the threshold must be a probability from 0 to 1; got {asked}")
        if asked is not None:
            return asked
        return None if self.config.specs or self.scored else self.config.threshold or 0.0

    def predict(
        self, images: ImageLike | Iterable[ImageLike], *, top: int = 5, batch: int = 16, threshold: float | None = None
    ) -> list[Any]:
        """Return the answer of the bundle's task to each image, in order; see `prepare` for the kinds of images.

        A classifier answers with a Prediction of the `top` classes (effnet.tasks.classification), a model of several
        outputs with a mapping from their names to a Prediction, Tags or a number (effnet.tasks.several), a detector
        with Detections (effnet.tasks.boxes.record), a segmenter with a Segmented (effnet.tasks.masks.record), both in
        pixels of the upright image. The path of a video gives a classifier's answer to its frames together
        (`clip_outputs`). A single image gives a list of one. `threshold` is the probability below which an
        image is "unknown": the bundle's own by default, that of its score, or that of each output; 0 for never. The
        model is opened before any image is read.
        """
        images = several_images(images, batch=batch, verb="predict")
        _ = self.engine
        if self.config.task_record.whole is not None:
            return [self.answer_in(whole_image(image, self.config.preprocess), threshold=threshold) for image in images]
        threshold, answer = self.chosen_threshold(threshold), self.config.task_record.answer
        return [
            answer(row, self.config.class_names, top=top, threshold=threshold)
            for clips, some in groupby(images, is_video)
            for row in (map(self.clip_outputs, some) if clips else self._rows(some, batch))  # type: ignore[arg-type]
        ]

    def _rows(self, images: Iterable[ImageLike], batch: int) -> Iterator[np.ndarray]:
        for prepared in _batches(map(self.prepare, images), batch):
            yield from self.outputs(np.stack(prepared), scored=True)

    def clip_outputs(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Return the probabilities float32 [classes] of a classifier for the frames of a video file together.

        If the bundle's file returns a score, the mean of the frames' is one more number. As many evenly spaced frames
        are taken as the bundle was fitted on. Raises ImageError if the file cannot be read, InputError for another
        task.
        """
        frames = sampled_frames(path, clip.frames if (clip := self.config.preprocess.clip) else FRAMES)
        channels = self.config.preprocess.channels
        self.must_classify()
        images = np.stack([self.prepare(fit_channels(frame, channels)) for frame in frames])
        rows = self.outputs(images, scored=True)
        classes = len(self.config.class_names)
        return np.concatenate([over_frames(rows[:, :classes]), rows[:, classes:].mean(0)])

    def answer_in(self, image: np.ndarray, *, threshold: float | None = None) -> Any:
        """Return the answer of a detector or a segmenter to one upright image, uint8 [height, width, channels].

        `threshold` is the least score of an object: the bundle's by default.
        """
        config = self.config
        whole = config.task_record.whole
        if whole is None:
            raise InputError(
                f"answers lie in the image for detectors and segmenters; this bundle's task is {config.task}"
            )

        def compute(images: np.ndarray) -> dict[str, np.ndarray]:
            return parted(self.outputs(images), config.file_outputs)

        least = config.threshold if threshold is None else threshold
        return whole(compute, image, config.arch, config.preprocess, threshold=least)

    def embed(self, images: ImageLike | Iterable[ImageLike], *, normalized: bool = True, batch: int = 16) -> np.ndarray:
        """Return the embeddings float32 [images, channels], in order; see `prepare` for the kinds of images.

        A single image gives one row. An embedding is the classifier's input: images that the network finds similar have
        similar embeddings. That of a bundle that `effnet align` wrote is its output, near the vectors of texts. With
        `normalized` each has length 1, so that the dot product of two is their cosine. They are computed in the
        predictor's runtime, in fp32 if its format is int8. Raises BundleError if `effnet export --features` has not
        written the file for it, and otherwise like `predict`.
        """
        images = several_images(images, batch=batch, verb="embed")
        _ = self.embedding_engine
        rows = [self.embeddings(np.stack(chunk)) for chunk in _batches(map(self.prepare, images), batch)]
        found = np.concatenate([np.empty((0, self.embedding_width), np.float32), *rows])
        return unit_rows(found) if normalized else found


# The predictors of this process, to reset after a fork.
_alive: weakref.WeakSet[Predictor] = weakref.WeakSet()


def _after_fork() -> None:
    for predictor in list(_alive):
        predictor._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _reopened(folder: str, threads: int, name: str) -> Predictor:
    return Predictor(folder, threads=threads, format=name)


def several_images(images: ImageLike | Iterable[ImageLike], *, batch: int, verb: str) -> Iterable[ImageLike]:
    """Return the images given to `verb`, one or many; raise InputError for anything else."""
    if batch < 1:
        raise InputError(f"{verb} takes batches of at least 1 image; got {batch}")
    # An array is one image, unless it has four dimensions: then it is a batch of images.
    one = isinstance(images, np.ndarray) and images.ndim != 4
    if one or isinstance(images, str | bytes | os.PathLike | Image.Image):
        return [images]  # type: ignore[list-item]
    if not isinstance(images, Iterable):
        raise InputError(f"{verb} takes {IMAGES}, or a list of these; got {type(images).__name__}")
    return images


def _batches(images: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while chunk := list(islice(images, size)):
        yield chunk


def load(folder: str | os.PathLike[str], *, threads: int = 1, format: str | None = None) -> Predictor:  # noqa: A002
    """Open the bundle in `folder` for prediction with `threads` threads (0: one a core), without torch.

    `format` names one of its exports, such as "onnx-int8"; by default it is the deployed format. Raises BundleError if
    `folder` is no bundle, InputError if there is no such format.
    """
    return Predictor(folder, threads=threads, format=format)
