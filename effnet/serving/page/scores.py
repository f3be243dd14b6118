"""Score the images of --review in the background, with the server's engines, while no request waits or runs."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effnet.data.corrections import digest_of
from effnet.data.sources.source import encoded
from effnet.errors import EffnetError
from effnet.runtimes.results import unit_rows
from effnet.serving.batches.batcher import Refused
from effnet.serving.batches.work import Kind, Task, Times
from effnet.serving.http.errors import HttpError
from effnet.serving.http.state import State
from effnet.serving.page.gallery import Gallery, Known, known_of
from effnet.serving.page.projection import project
from effnet.serving.versions.version import Version
from effnet.tasks.classification import PROBABILITIES

MOST_POINTS = 2000
"""The most images of a map; of more, evenly spaced ones are shown."""

_BEST = 9
_BUSY_SECONDS, _REST_SECONDS = 0.05, 1.0
_RETRIED = (503,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The answer to one image: its best classes with their probabilities; `error` says why there is none.

    `uncertain` is 1 less the margin of the two most probable classes, `doubt` by how much the best class is more
    probable than the image's own label, 0 if they are the same.
    """

    digest: str
    best: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    known: bool = True
    uncertain: float = 0.0
    doubt: float = 0.0
    error: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Points:
    """The map: the numbers of its images, their places from 0 to 1 [images, 2], and their vectors of length 1.

    `shares` are those of the variance that both axes show.
    """

    numbers: tuple[int, ...]
    places: np.ndarray
    vectors: np.ndarray
    shares: tuple[float, float]

    def nearest(self, number: int, *, most: int) -> list[int]:
        """Return the images whose vectors are most similar to an image's, but for itself."""
        if number not in self.numbers:
            return []
        cosines = self.vectors @ self.vectors[self.numbers.index(number)]
        return [self.numbers[i] for i in np.argsort(-cosines, kind="stable") if self.numbers[i] != number][:most]


@dataclass(slots=True, kw_only=True, eq=False)
class Round:
    """The scores by one version of the model. `points` is None until they are complete; `no_points` says why never."""

    version: Version
    known: Known
    wanted: tuple[int, ...]
    scored: dict[int, Scored] = field(default_factory=dict)
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    points: Points | None = None
    no_points: str = ""

    @property
    def reviewable(self) -> bool:
        """Whether the answers are classes."""
        config = self.version.config
        return config.task_record.output.name == PROBABILITIES.name and not config.specs


class Scores:
    """The scores of a gallery's images, by the version of the first model that answers now.

    One image at a time is offered to the engines, only if none of them runs and nothing waits: a request waits for at
    most one image, and for none if there is another engine.
    """

    def __init__(self, state: State, gallery: Gallery) -> None:
        self._state, self._gallery = state, gallery
        self.round: Round | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="effnet-review", daemon=True)

    def start(self) -> None:
        """Begin to score, once the model is loaded."""
        self._thread.start()

    def close(self, *, seconds: float = 5.0) -> None:
        """End; wait at most `seconds`."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _loop(self) -> None:
        while not self._ended.is_set():
            try:
                rest = 0.0 if self._step() else _REST_SECONDS
            except Exception as error:
                # What is not scored is not shown; requests go on.
                self._state.log("review_failed", error=repr(error))
                rest = 10 * _REST_SECONDS
            self._ended.wait(rest)

    def _step(self) -> bool:
        """Do the next piece of work; return whether there was any."""
        found = self._state.models.versions(self._state.models.names[0])
        if not found or self._state.life.draining:
            return False
        if self.round is None or self.round.version.group != found[-1].group:
            self.round = self._begin(found[-1])
            return True
        current = self.round
        if len(current.scored) < len(self._gallery):
            number = len(current.scored)
            current.scored[number] = self._score(current, number)
            return True
        if current.points is None and not current.no_points:
            self._embed(current)
            return True
        return False

    def _begin(self, version: Version) -> Round:
        count = len(self._gallery)
        wanted = sorted(set(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int).tolist()))
        known = known_of(self._gallery, version.first.folder, version.config)
        return Round(version=version, known=known, wanted=tuple(wanted))

    def _score(self, current: Round, number: int) -> Scored:
        digest = digest_of(self._gallery.sources[number])
        if not current.reviewable:
            return Scored(digest=digest)
        row = self._computed(current.version, number, "rows")
        if isinstance(row, str):
            return Scored(digest=digest, error=row)
        config, first = current.version.config, current.version.first
        answer = config.task_record.answer(row, config.class_names, top=_BEST, threshold=first.chosen_threshold(None))
        places = {name: place for place, name in enumerate(config.class_names)}
        best = tuple(places[label] for label in answer.labels)
        row = row[: len(config.class_names)]  # without the score
        ordered, label = np.sort(row)[::-1], current.known.labels.get(number)
        return Scored(
            digest=digest, best=best, probabilities=answer.probabilities, known=answer.known,
            uncertain=1 - float(ordered[0] - (ordered[1] if len(ordered) > 1 else 0)),
            doubt=0.0 if label is None or label == best[0] else max(1e-9, float(row[best[0]] - row[label])),
        )  # fmt: skip

    def _embed(self, current: Round) -> None:
        try:
            _ = current.version.first.embedding_engine
        except EffnetError as error:
            current.no_points = str(error)
            return
        for number in current.wanted:
            if self._ended.is_set() or self._state.life.draining or not self._is_current(current):
                return
            if number not in current.vectors:
                row = self._computed(current.version, number, "embeddings")
                if not isinstance(row, str):
                    current.vectors[number] = unit_rows(row[None])[0]
        if len(current.vectors) < 2:
            current.no_points = "a map needs at least two images that can be read"
            return
        numbers = tuple(current.vectors)
        vectors = np.stack([current.vectors[number] for number in numbers])
        places, shares = project(vectors)
        low, high = places.min(0), places.max(0)
        places = (places - low) / np.where(high > low, high - low, 1)
        current.points = Points(numbers=numbers, places=places, vectors=vectors, shares=shares)

    def _is_current(self, current: Round) -> bool:
        found = self._state.models.versions(self._state.models.names[0])
        return bool(found) and found[-1].group == current.version.group

    def _computed(self, version: Version, number: int, kind: Kind) -> np.ndarray | str:
        """Return the row [columns] of an image, or why there is none."""
        while not self._ended.is_set():
            answer = self._tried(version, number, kind)
            if answer is not None:
                return answer
            self._ended.wait(_BUSY_SECONDS)
        return "the server ended"

    def _tried(self, version: Version, number: int, kind: Kind) -> np.ndarray | str | None:
        """Return the row of an image, why there is none, or None if the engines have other work."""
        found, done = list[Any](), threading.Event()

        def reply(answer: Any) -> None:
            found.append(answer)
            done.set()

        task = Task(
            version=version, kind=kind, read=_reader(self._gallery, number), write=_row, reply=reply, counted=False
        )
        try:
            waiting = self._state.workers.offer_if_idle(task, group=task.group)
        except Refused:
            return None
        if waiting is None:
            return None
        while not done.wait(_REST_SECONDS):
            if self._ended.is_set() and self._state.workers.drop(waiting):
                return None
        answer = found[0]
        if isinstance(answer, HttpError):
            return None if answer.status in _RETRIED else str(answer.__cause__ or answer.message)
        row: np.ndarray = answer
        return row


def _reader(gallery: Gallery, number: int) -> Callable[[Version], Sequence[np.ndarray]]:
    def read(version: Version) -> Sequence[np.ndarray]:
        return (version.first.prepare(encoded(gallery.sources[number])),)

    return read


def _row(version: Version, found: Any, times: Times) -> np.ndarray:
    row: np.ndarray = found[0]
    return row
