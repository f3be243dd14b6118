"""A discrete-event simulation of servers behind a balancer: their real queue, with measured times for the engines.

Every replica is a `Batcher`, the one that serves, with a clock of events instead of the system's. An engine takes a
batch, decodes its images one after the other and runs the model once, as `serving.work` does. What it does not know:
the time of the network, and replicas that share cores.
"""

import heapq
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from effnet.serving.batches.batcher import Batch, Batcher, Refused

Balance = Literal["random", "least"]
"""How a balancer chooses: at random, or the replica with the fewest requests that it has not answered."""

_GROUP = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Measured seconds of one engine: to decode an image, and to run a batch, by its size; samples of each.

    `other` is the time of a request outside the engine: HTTP, reading and writing.
    """

    decode: Sequence[float]
    run: Mapping[int, Sequence[float]]
    other: float = 0.0

    @property
    def largest(self) -> int:
        """The largest batch that was measured."""
        return max(self.run)

    @property
    def image_seconds(self) -> float:
        """The mean time of an engine for one image in the best of the measured batches."""
        return float(np.mean(self.decode)) + min(float(np.mean(times)) / size for size, times in self.run.items())

    @property
    def batch_seconds(self) -> float:
        """The mean time of the largest batch: the most that follows a wait."""
        return self.largest * float(np.mean(self.decode)) + float(np.mean(self.run[self.largest]))

    def draw(self, images: int, rng: random.Random) -> float:
        """Return a random time of a batch; one of a size that was not measured is interpolated."""
        decode = sum(rng.choice(self.decode) for _ in range(images))
        if images in self.run:
            return decode + rng.choice(self.run[images])
        sizes = sorted(self.run)
        means = [float(np.mean(self.run[size])) for size in sizes]
        return decode + float(np.interp(images, sizes, means))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Equal replicas, and their limits: as `Settings` has them, in seconds."""

    replicas: int
    engines: int
    deadline_s: float
    queue: int = 64
    delay_s: float = 0.0
    balance: Balance = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the requests of a simulation: shares of all, and seconds of those that were answered."""

    answered: float
    refused: float
    overdue: float
    goodput: float
    p50_s: float
    p99_s: float
    busy: float


def poisson(rate: float, *, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return the times of requests that come independently of each other, `rate` a second on average."""
    count = rng.poisson(rate * seconds)
    return np.sort(rng.uniform(0, seconds, count))


def simulate(arrivals: np.ndarray, service: Service, fleet: Fleet, *, seed: int = 0) -> Outcome:
    """Return what becomes of requests of one image that come at these times, in seconds.

    `goodput` counts the answers a second that came within the deadline and the time of a batch.
    """
    return _Run(service, fleet, seed).go(arrivals)


class _Run:
    def __init__(self, service: Service, fleet: Fleet, seed: int) -> None:
        self._service, self._fleet, self._rng = service, fleet, random.Random(seed)
        self._queues: list[Batcher[float]] = []
        for _ in range(fleet.replicas):
            queue: Batcher[float] = Batcher(
                workers=fleet.engines, bound=fleet.queue, deadline_s=fleet.deadline_s, delay_s=fleet.delay_s
            )
            queue.expect(_GROUP, seconds=service.image_seconds, largest=service.largest)
            self._queues.append(queue)
        self._open = [0] * fleet.replicas
        self._idle = [fleet.engines] * fleet.replicas
        # Time, a number that settles ties, replica, and the batch that ends then; None: a queue is looked at.
        self._events: list[tuple[float, int, int, Batch[float] | None]] = []
        self._numbers = itertools.count()
        self._latencies: list[float] = []
        self._overdue = self._refused = 0
        self._busy = 0.0

    def go(self, arrivals: np.ndarray) -> Outcome:
        for at in arrivals.tolist():
            self._until(at)
            self._arrive(at)
        self._until(float("inf"))
        seconds = float(arrivals[-1]) if len(arrivals) else 0.0
        found, count = np.array(self._latencies), max(1, len(arrivals))
        most = self._fleet.deadline_s + self._service.batch_seconds + self._service.other
        return Outcome(
            answered=len(found) / count, refused=self._refused / count, overdue=self._overdue / count,
            goodput=float((found <= most).sum()) / seconds if seconds else 0.0,
            p50_s=float(np.quantile(found, 0.5)) if len(found) else 0.0,
            p99_s=float(np.quantile(found, 0.99)) if len(found) else 0.0,
            busy=self._busy / (seconds * self._fleet.replicas * self._fleet.engines) if seconds else 0.0,
        )  # fmt: skip

    def _arrive(self, now: float) -> None:
        replica = self._choose()
        try:
            self._queues[replica].offer(now, group=_GROUP, now=now)
        except Refused:
            self._refused += 1
            return
        self._open[replica] += 1
        self._pump(replica, now)

    def _choose(self) -> int:
        if self._fleet.replicas == 1:
            return 0
        if self._fleet.balance == "random":
            return self._rng.randrange(self._fleet.replicas)
        return min(range(self._fleet.replicas), key=self._open.__getitem__)

    def _until(self, now: float) -> None:
        while self._events and self._events[0][0] <= now:
            at, _, replica, batch = heapq.heappop(self._events)
            if batch is not None:
                self._queues[replica].done(batch, at)
                self._idle[replica] += 1
                self._open[replica] -= len(batch.requests)
                self._latencies += [at - waiting.item + self._service.other for waiting in batch.requests]
            self._pump(replica, at)

    def _pump(self, replica: int, now: float) -> None:
        """Let idle engines take what waits."""
        queue = self._queues[replica]
        while self._idle[replica] and len(queue):
            batch = queue.take(now)
            late = len(queue.overdue())
            self._overdue += late
            self._open[replica] -= late
            if batch is None:
                if pause := queue.pause(now):
                    heapq.heappush(self._events, (now + pause, next(self._numbers), replica, None))
                return
            seconds = self._service.draw(batch.images, self._rng)
            self._idle[replica] -= 1
            self._busy += seconds
            heapq.heappush(self._events, (now + seconds, next(self._numbers), replica, batch))
