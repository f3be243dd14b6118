"""The queue before the engines: what is refused, what runs together, and what came too late. No HTTP, no threads.

Every time is an argument, in seconds on any clock that never goes back. The caller holds a lock around each call.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Reason = Literal["queue", "deadline", "draining"]

# The weight of the newest batch in the average time of an image: about the last twenty batches count.
_NEWEST = 0.1
# Until an engine has run, an image is assumed to take this long.
_FIRST_SECONDS = 0.01
# In an overload every request is accepted at the longest wait that is allowed. Half of them would be overdue if that
# were an unbiased guess, so it is multiplied by the 99.5th percentile of what requests waited, relative to what was
# expected. That is tracked by steps (Robbins and Monro, 1951), from waits of at least this share of the deadline.
_SLOWER, _MOST_SLOWER, _UP, _DOWN, _LEAST_SHARE = 1.1, 3.0, 0.1, 0.0005, 0.125


class Refused(Exception):
    """A request that is not accepted; it may be sent again after `retry_s` seconds, also to another server."""

    def __init__(self, reason: Reason, *, retry_s: float) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.retry_s = retry_s


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """A queued request of `images` images; those of one `group`, such as a model, can run together.

    `expected` is the wait in seconds that was expected for it.
    """

    item: T
    group: Hashable
    images: int
    since: float
    expected: float = 0.0


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """Requests of one group that an engine runs together, in the order in which they came."""

    requests: list[Waiting[T]]
    group: Hashable
    images: int
    started: float


class Batcher(Generic[T]):
    """One bounded queue before `workers` engines of one thread.

    It holds at most `bound` requests. One whose expected wait, times `slower`, exceeds `deadline_s` is refused, and one
    that waited longer than that is given up: `overdue` returns it. A batch is what waits, shared fairly among the idle
    engines, up to the largest batch of its group; with `delay_s` an engine waits that long for a batch to fill.
    """

    def __init__(self, *, workers: int, bound: int, deadline_s: float, delay_s: float = 0.0) -> None:
        self.workers, self.bound, self.deadline_s, self.delay_s = workers, bound, deadline_s, delay_s
        self.closed = False
        self.slower = _SLOWER
        # By identity, in the order of arrival: a request can leave from the middle.
        self._queue: dict[int, Waiting[T]] = {}
        self._running: list[Batch[T]] = []
        self._overdue: list[Waiting[T]] = []
        self._seconds: dict[Hashable, float] = {}
        self._most: dict[Hashable, int] = {}
        self._queued: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        """The number of requests that engines run now."""
        return sum(len(batch.requests) for batch in self._running)

    def expect(self, group: Hashable, *, seconds: float = _FIRST_SECONDS, largest: int = 1) -> None:
        """Set the time of one image of a group, until batches have measured it, and its largest batch in images."""
        self._seconds[group], self._most[group] = seconds, max(1, largest)

    def forget(self, group: Hashable) -> None:
        """Forget a group that gets no more requests."""
        for table in (self._seconds, self._most):
            table.pop(group, None)

    def seconds_of(self, group: Hashable) -> float:
        """Return the average time of one image of a group."""
        return self._seconds.get(group, _FIRST_SECONDS)

    def expected_wait(self, now: float) -> float:
        """Return the seconds that a new request would wait for an engine."""
        if not self._queue and len(self._running) < self.workers:
            return 0.0
        queued = sum(self.seconds_of(group) * images for group, images in self._queued.items())
        left = sum(max(0.0, self._needs(batch) - (now - batch.started)) for batch in self._running)
        return (queued + left) / self.workers

    def _needs(self, batch: Batch[T]) -> float:
        return self.seconds_of(batch.group) * batch.images

    def check(self, now: float) -> float:
        """Return the expected wait of a request that came now; raise Refused if it would not be accepted."""
        if self.closed:
            raise Refused("draining", retry_s=1.0)
        wait = self.expected_wait(now)
        if len(self._queue) >= self.bound:
            raise Refused("queue", retry_s=wait)
        if wait * self.slower > self.deadline_s:
            raise Refused("deadline", retry_s=wait - self.deadline_s / self.slower)
        return wait

    def offer(self, item: T, *, group: Hashable, now: float, images: int = 1) -> Waiting[T]:
        """Queue a request, or raise Refused."""
        wait = self.check(now)
        waiting = Waiting(item=item, group=group, images=images, since=now, expected=wait)
        self._queue[id(waiting)] = waiting
        self._queued[group] = self._queued.get(group, 0) + images
        return waiting

    def drop(self, waiting: Waiting[T]) -> bool:
        """Remove a request whose client has left; return whether it still waited."""
        return self._leave(waiting)

    def take(self, now: float) -> Batch[T] | None:
        """Return what an idle engine runs next, None if nothing is due."""
        self._give_up(now)
        if self.pause(now) != 0:
            return None
        first = next(iter(self._queue.values()))
        group, waits = first.group, self._queued[first.group]
        idle = max(1, self.workers - len(self._running))
        share = min(self._most.get(group, 1), math.ceil(waits / idle))
        batch: Batch[T] = Batch(requests=[], group=group, images=0, started=now)
        for waiting in [waiting for waiting in self._queue.values() if waiting.group == group]:
            if batch.requests and batch.images + waiting.images > share:
                break
            self._leave(waiting)
            batch.requests.append(waiting)
            batch.images += waiting.images
        self._learn(batch.requests, now)
        self._running.append(batch)
        return batch

    def pause(self, now: float) -> float | None:
        """Return the seconds until the oldest request is due, 0 if it is; None if none waits."""
        if not self._queue:
            return None
        first = next(iter(self._queue.values()))
        if self.delay_s <= 0 or self._queued[first.group] >= self._most.get(first.group, 1) or self.closed:
            return 0.0
        return max(0.0, first.since + self.delay_s - now)

    def done(self, batch: Batch[T], now: float) -> None:
        """Record that an engine has finished a batch."""
        self._running.remove(batch)
        if batch.group in self._seconds and batch.images:
            found, known = (now - batch.started) / batch.images, self._seconds[batch.group]
            self._seconds[batch.group] = known + _NEWEST * (found - known)

    def overdue(self) -> list[Waiting[T]]:
        """Return the requests that `take` gave up since the last call."""
        found, self._overdue = self._overdue, []
        return found

    def close(self) -> list[Waiting[T]]:
        """Accept nothing more, and return the requests that wait: they are still run."""
        self.closed = True
        return list(self._queue.values())

    def _give_up(self, now: float) -> None:
        late = []
        for waiting in list(self._queue.values()):
            if now - waiting.since <= self.deadline_s:
                break  # they are in the order of arrival
            self._leave(waiting)
            late.append(waiting)
        self._learn(late, now)
        self._overdue += late

    def _learn(self, left: Sequence[Waiting[T]], now: float) -> None:
        """Learn from requests that leave the queue together how much longer than expected they waited."""
        least = _LEAST_SHARE * self.deadline_s
        ratios = [(now - waiting.since) / waiting.expected for waiting in left if waiting.expected >= least > 0]
        if ratios:
            step = _UP if max(ratios) > self.slower else -_DOWN * len(ratios)
            self.slower = min(_MOST_SLOWER, max(1.0, self.slower + step))

    def _leave(self, waiting: Waiting[T]) -> bool:
        if self._queue.pop(id(waiting), None) is None:
            return False
        self._queued[waiting.group] -= waiting.images
        if not self._queued[waiting.group]:
            del self._queued[waiting.group]
        return True
