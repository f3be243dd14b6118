"""What an engine does with a batch: decode, run, and write each answer; a bad image fails alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from effnet.errors import EffnetError
from effnet.runtimes.predictor import Predictor
from effnet.serving.batches.batcher import Batch, Waiting
from effnet.serving.http.errors import HttpError, overdue
from effnet.serving.versions.version import Version

Kind = Literal["rows", "maps", "embeddings", "whole"]
"""What is computed: the outputs of prepared images, also with their activation maps, or their embeddings; or the answer
in one upright image."""


@dataclass(slots=True, kw_only=True)
class Times:
    """The seconds of one request: before an engine took it, in the decoder, in the model."""

    queue: float = 0.0
    decode: float = 0.0
    run: float = 0.0

    def in_ms(self) -> dict[str, float]:
        """Return them in milliseconds, as answers show them."""
        return {name: round(1e3 * getattr(self, name), 3) for name in ("queue", "decode", "run")}


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One request for an engine.

    `read(version)` returns its images: prepared, uint8 [height, width, channels] each, or one upright image for the
    kind "whole". `write(version, found, times)` returns the answer from the rows [images, columns], of which a score
    that the file returns is the last, for the kind "maps" from a pair of rows and maps [images, columns, height,
    width], or from the answer of the bundle's task. `reply` gets that, or the exception that one of them raised; it is
    called in the engine's thread. One that is not `counted` is none of the metrics': no client sent it.
    """

    version: Version
    kind: Kind
    read: Callable[[Version], Sequence[np.ndarray]]
    write: Callable[[Version, Any, Times], Any]
    reply: Callable[[Any], None]
    threshold: float | None = None
    counted: bool = True
    times: Times = field(default_factory=Times)

    @property
    def group(self) -> str:
        """The tasks that can run in one batch."""
        return f"{self.version.group} {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the metrics learn of a batch that ran."""

    version: Version
    images: int
    decode: tuple[float, ...]
    run: float


def give_up(waiting: Waiting[Task]) -> None:
    """Answer a task that waited longer than the deadline."""
    waiting.item.reply(overdue())


class Runner:
    """Runs batches on the engine of a worker; `seen` is called after each."""

    def __init__(self, *, seen: Callable[[Seen], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._seen, self._clock = seen, clock

    def __call__(self, number: int, batch: Batch[Task]) -> None:
        """Answer every task of a batch on the engine `number`."""
        tasks = []
        for waiting in batch.requests:
            waiting.item.times.queue = batch.started - waiting.since
            tasks.append(waiting.item)
        read = [(task, images) for task in tasks if (images := self._read(task)) is not None]
        try:
            found = self._compute(number, read)
        except Exception as error:
            for task, _ in read:
                task.reply(_failure(error))
            return
        for (task, _), answer in zip(read, found, strict=True):
            try:
                task.reply(task.write(task.version, answer, task.times))
            except Exception as error:
                task.reply(_failure(error))
        counted = [(task, images) for task, images in read if task.counted]
        if counted:
            count = sum(len(images) for _, images in counted)
            decode = tuple(task.times.decode for task, _ in counted)
            self._seen(Seen(version=counted[0][0].version, images=count, decode=decode, run=counted[0][0].times.run))

    def _read(self, task: Task) -> Sequence[np.ndarray] | None:
        """Return the images of a task, or answer it with the error and return None."""
        start = self._clock()
        try:
            images = task.read(task.version)
        except Exception as error:
            task.reply(_failure(error))
            return None
        task.times.decode = self._clock() - start
        return images

    def _compute(self, number: int, read: Sequence[tuple[Task, Sequence[np.ndarray]]]) -> list[Any]:
        """Return the rows, or the answer, of each task."""
        if not read:
            return []
        first, start = read[0][0], self._clock()
        engine = first.version.engine(number)
        if first.kind == "whole":
            found: list[Any] = []
            for task, (image, *_) in read:
                begun = self._clock()
                found.append(engine.answer_in(image, threshold=task.threshold))
                task.times.run = self._clock() - begun
            return found
        images = [image for _, some in read for image in some]
        most = first.version.largest
        parts = [
            _run(engine, first.kind, np.stack(images[place : place + most])) for place in range(0, len(images), most)
        ]
        arrays = parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))
        seconds, place, found = self._clock() - start, 0, []
        for task, some in read:
            task.times.run = seconds
            own = tuple(each[place : place + len(some)] for each in arrays)
            found.append(own if len(own) > 1 else own[0])
            place += len(some)
        return found


def _run(engine: Predictor, kind: Kind, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what prepared images [batch, height, width, channels] give, an array [batch, ...] or two."""
    if kind == "maps":
        return engine.outputs_and_maps(images, scored=True)
    return (engine.embeddings(images) if kind == "embeddings" else engine.outputs(images, scored=True),)


def _failure(error: Exception) -> HttpError:
    """Return the answer for an error: of the client if it is one of these, else of the server."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, EffnetError):
        failure = HttpError(500, f"the model must answer; it failed: {error}")
    elif isinstance(error, MemoryError):
        failure = HttpError(500, "the model must answer; memory ran out: send smaller images, or raise the limit")
    else:
        failure = HttpError(500, "the model must answer; it failed, and the server's log says why: report it")
    failure.__cause__ = error
    return failure
