"""The threads before the batcher's queue: each runs one batch at a time on an engine of its own."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from effnet.serving.batches.batcher import Batch, Batcher, Waiting
from effnet.serving.batches.threads import step_back

T = TypeVar("T")


class Workers(Generic[T]):
    """As many threads as `batcher.workers`.

    `run(number, batch)` runs a batch on the engine with the thread's number, and answers its requests; it must not
    raise. `give_up(waiting)` answers one that waited too long. The threads run behind the others of the process by
    `nice` steps of niceness. `clock` counts seconds.
    """

    def __init__(
        self,
        batcher: Batcher[T],
        *,
        run: Callable[[int, Batch[T]], None],
        give_up: Callable[[Waiting[T]], None],
        nice: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batcher, self._run, self._give_up, self._clock = batcher, run, give_up, clock
        self._nice = nice
        self._changed = threading.Condition()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._loop, args=(number,), name=f"effnet-engine-{number}", daemon=True)
            for number in range(batcher.workers)
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise Refused if a request that came now would not be accepted."""
        with self._changed:
            self.batcher.check(self._clock())

    def offer(self, item: T, *, group: str, images: int = 1) -> Waiting[T]:
        """Queue a request, or raise Refused."""
        with self._changed:
            waiting = self.batcher.offer(item, group=group, images=images, now=self._clock())
            self._changed.notify()
        return waiting

    def offer_if_idle(self, item: T, *, group: str) -> Waiting[T] | None:
        """Queue a request of no hurry if none waits and no engine runs; return None if not, or raise Refused."""
        with self._changed:
            if len(self.batcher) or self.batcher.running:
                return None
            waiting = self.batcher.offer(item, group=group, now=self._clock())
            self._changed.notify()
        return waiting

    def drop(self, waiting: Waiting[T]) -> bool:
        """Remove a request whose client has left; return whether it still waited."""
        with self._changed:
            return self.batcher.drop(waiting)

    def expect(self, group: str, *, seconds: float, largest: int) -> None:
        """See `Batcher.expect`."""
        with self._changed:
            self.batcher.expect(group, seconds=seconds, largest=largest)

    def forget(self, group: str) -> None:
        """See `Batcher.forget`."""
        with self._changed:
            self.batcher.forget(group)

    def counts(self) -> tuple[int, int]:
        """Return the number of requests that wait, and that run."""
        with self._changed:
            return len(self.batcher), self.batcher.running

    def close(self) -> None:
        """Accept nothing more; what waits is still run."""
        with self._changed:
            self.batcher.close()

    def end(self, *, seconds: float = 5.0) -> None:
        """Accept nothing more, run what waits and end the threads; wait at most `seconds` for them."""
        with self._changed:
            self.batcher.close()
            self._ended = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _loop(self, number: int) -> None:
        step_back(self._nice)
        while (batch := self._next()) is not None:
            self._run(number, batch)
            with self._changed:
                self.batcher.done(batch, self._clock())
            del batch  # it holds a model that may have been replaced

    def _next(self) -> Batch[T] | None:
        """Wait for a batch and return it; None if there will be none."""
        while True:
            with self._changed:
                batch, late = self.batcher.take(self._clock()), self.batcher.overdue()
                if batch is None and not late:
                    if self._ended and not len(self.batcher):
                        return None
                    self._changed.wait(self.batcher.pause(self._clock()))
            for waiting in late:
                self._give_up(waiting)
            if batch is not None:
                return batch
