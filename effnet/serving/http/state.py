"""What the routes of one server share: settings, models, engines, metrics and log."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from effnet.errors import EffnetError
from effnet.measurement.drift.expected import expected_answers
from effnet.serving.batches.batcher import Batcher, Refused
from effnet.serving.batches.work import Kind, Runner, Task, Times, give_up
from effnet.serving.batches.workers import Workers
from effnet.serving.drift import Drift
from effnet.serving.http.body import Body, BodyRoom
from effnet.serving.http.errors import Gone, HttpError, refused
from effnet.serving.logs import Log
from effnet.serving.metrics import Metrics
from effnet.serving.settings import Settings
from effnet.serving.versions.models import Models
from effnet.serving.versions.version import Source, Version, load_version
from effnet.tasks.classification import PROBABILITIES, Prediction

# The place of an answer that nobody waits for, and how long a client is not watched.
_GONE, _WATCH_AFTER_SECONDS = object(), 0.02
_KINDS: tuple[Kind, ...] = ("rows", "maps", "embeddings", "whole")


@dataclass(slots=True)
class Facts:
    """What the log line and the metrics of a request say beside its path and code."""

    model: str = ""
    version: str = ""
    size: int = 0
    times: Times | None = None


@dataclass(slots=True)
class Life:
    """Whether the server is `draining`: it serves, but wants no more requests. `loaded` is called after each load."""

    draining: bool = False
    stop: Callable[[], None] = field(default=lambda: None)
    loaded: Callable[[], None] = field(default=lambda: None)


class State:
    """One server without its sockets."""

    def __init__(self, sources: tuple[Source, ...], settings: Settings, *, log: Log | None = None) -> None:
        self.settings, self.log, self.life = settings, log or Log(), Life()
        self.room = BodyRoom(settings.body_room)
        batcher: Batcher[Task] = Batcher(
            workers=settings.engines, bound=settings.queue, deadline_s=settings.deadline_ms / 1e3,
            delay_s=settings.max_delay_ms / 1e3,
        )  # fmt: skip
        self.metrics = Metrics(counts=lambda: self.workers.counts())
        self.workers: Workers[Task] = Workers(
            batcher, run=Runner(seen=self.metrics.ran), give_up=give_up, nice=settings.engine_nice
        )  # fmt: skip
        self.models = Models(
            sources, self._load, began=self._began, ended=self._ended, failed=self._failed
        )  # fmt: skip
        for name in self.models.names:
            self.metrics.ready.labels(name).set(0)
        self.drifts: dict[str, Drift] = {}
        self._warned: set[str] = set()
        self._turn = threading.Lock()

    def close(self) -> None:
        """End the engines' threads, after what waits has run."""
        self.workers.end()

    @property
    def ready(self) -> bool:
        """Whether the server wants requests: every model answers, and it is not shutting down."""
        return self.models.ready and not self.life.draining

    def _load(self, source: Source) -> Version:
        version = load_version(source, self.settings, warn=self._warn)
        self.life.loaded()
        return version

    def _warn(self, assumed: str) -> None:
        with self._turn:
            first = assumed not in self._warned
            self._warned.add(assumed)
        if first:
            self.log("assumed", message=assumed)

    def _began(self, version: Version) -> None:
        for kind in _KINDS:
            largest = 1 if kind == "whole" else version.largest
            self.workers.expect(f"{version.group} {kind}", seconds=version.image_seconds, largest=largest)
        if version.config.task_record.output.name == PROBABILITIES.name and not version.config.specs:
            expected = expected_answers(version.first.folder, version.config.class_names)
            if expected is not None:
                self.drifts[version.group] = Drift(expected=expected)
        self.metrics.began(version)
        self.log(
            "loaded", model=version.name, version=version.version, format=version.first.format.name,
            largest_batch=version.largest, image_ms=round(1e3 * version.image_seconds, 3),
            seconds=round(version.load_seconds, 3), proven_against=version.proven.against,
            difference=version.proven.difference,
        )  # fmt: skip

    def _ended(self, version: Version) -> None:
        for kind in _KINDS:
            self.workers.forget(f"{version.group} {kind}")
        again = any((new.name, new.version) == (version.name, version.version) for new in self.models.all())
        self.metrics.ended(version, again=again)
        self.drifts.pop(version.group, None)

    def _failed(self, source: Source, reason: str) -> None:
        self.metrics.failures.labels(source.name).inc()
        self.log("load_failed", model=source.name, folder=str(source.folder), error=reason)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as a client accepts them, and their content type."""
        for version in self.models.all():
            if (drift := self.drifts.get(version.group)) is not None:
                self.metrics.drifted(version, drift)
        return self.metrics.page(accept)

    def saw(self, version: Version, found: Prediction) -> None:
        """Record the answer of a classifier in the metrics."""
        self.metrics.answered(version, found, self.drifts.get(version.group))

    def check(self) -> None:
        """Raise HttpError if a request that came now would not be accepted: before its body is read."""
        try:
            self.workers.check()
        except Refused as error:
            raise refused(error) from error

    async def body_of(self, request: Request) -> Body:
        """Return the whole body of a request; the caller frees it."""
        body = Body(self.room)
        try:
            await body.read(
                request.receive, request.headers, most=self.settings.max_body, seconds=self.settings.body_seconds
            )
        except BaseException:
            body.free()
            raise
        facts: Facts = request.scope["effnet"]
        facts.size = len(body.data)
        return body

    async def answer(self, request: Request, make: Callable[[Callable[[Any], None]], Task], *, images: int = 1) -> Any:
        """Run the task that `make(reply)` returns, and return its answer; raise HttpError, or Gone if nobody waits.

        A request whose client leaves is taken out of the queue.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(answer: Any) -> None:
            if not future.done():
                future.set_result(answer)

        def reply(answer: Any) -> None:
            # A loop that is closed has nobody to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, answer)

        task = make(reply)
        facts: Facts = request.scope["effnet"]
        facts.times = task.times
        try:
            waiting = self.workers.offer(task, group=task.group, images=images)
        except Refused as error:
            raise refused(error) from error
        answer = _GONE
        try:
            answer = await _answer_or_gone(request, future)
        finally:
            if answer is _GONE:
                self.workers.drop(waiting)
        if answer is _GONE:
            raise Gone
        if isinstance(answer, HttpError):
            cause = answer.__cause__
            if answer.status == 500 and cause is not None and not isinstance(cause, EffnetError):
                self.log("failed", error=repr(cause))
            raise answer
        return answer


async def _answer_or_gone(request: Request, future: asyncio.Future[Any]) -> Any:
    """Return the answer, or _GONE if the client leaves before it comes."""
    loop, watching = asyncio.get_running_loop(), list[asyncio.Task[None]]()

    def watch() -> None:
        watching.append(loop.create_task(_leave(request, future)))

    # Most answers come sooner, and a task for each request would cost more than the rest of it.
    timer = loop.call_later(_WATCH_AFTER_SECONDS, watch)
    try:
        return await future
    finally:
        timer.cancel()
        for task in watching:
            task.cancel()


async def _leave(request: Request, future: asyncio.Future[Any]) -> None:
    """Wait until the client has left, and say so instead of an answer."""
    await request.receive()
    if not future.done():
        future.set_result(_GONE)
