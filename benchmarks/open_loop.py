"""Send requests at random times of a Poisson process, whether or not earlier ones are answered.

So waiting is not hidden: latency counts from the scheduled time. How late the sender itself was is kept apart.
"""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

_STEPS_AHEAD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: the code of its answer, 0 for none, and the seconds from its scheduled time.

    `late` of these passed before the sender began; `overdue` says that it was accepted, and given up at the deadline.
    """

    code: int
    seconds: float
    late: float = 0.0
    overdue: bool = False


async def post(port: int, data: bytes, *, at: float) -> Sent:
    """Send an image over a connection of its own; `at` is the scheduled time, of time.monotonic."""
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    late, code, answer = time.monotonic() - at, 0, b""
    try:
        _, client = await loop.create_connection(lambda: _Client(loop, head.encode() + data), "127.0.0.1", port)
        answer = await client.answer
        code = int(answer.split(None, 2)[1])
    except (OSError, IndexError, ValueError):
        pass
    return Sent(code=code, seconds=time.monotonic() - at, late=late, overdue=b"an accepted request" in answer)


class _Client(asyncio.Protocol):
    """Sends a request and keeps what comes until the other side closes; half the work of asyncio's streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self._request, self._found = request, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._found += data

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.answer.done():
            self.answer.set_result(self._found)


def step_ahead() -> None:
    """Let this process run before the server on its cores, where the system allows it: a load comes from outside."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - _STEPS_AHEAD)


async def closed_loop(port: int, files: Sequence[bytes], *, clients: int, seconds: float, seed: int) -> float:
    """Return the requests a second that a server answers to clients that send one after the other."""
    rng, sent, begun = random.Random(seed), list[Sent](), time.monotonic()

    async def one_after_another() -> None:
        while time.monotonic() - begun < seconds:
            sent.append(await post(port, rng.choice(files), at=time.monotonic()))

    await asyncio.gather(*(one_after_another() for _ in range(clients)))
    return sum(each.code == 200 for each in sent) / (time.monotonic() - begun)


async def open_loop(port: int, files: Sequence[bytes], *, rate: float, count: int, seed: int) -> list[Sent]:
    """Send `count` requests, `rate` a second on average, and return them."""
    rng = random.Random(seed)
    at, tasks = time.monotonic(), []
    for _ in range(count):
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        tasks.append(asyncio.ensure_future(post(port, rng.choice(files), at=at)))
        at += rng.expovariate(rate)
    return list(await asyncio.gather(*tasks))


def quantile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Return a quantile in milliseconds, None of nothing."""
    found = sorted(seconds)
    return round(1e3 * found[min(len(found) - 1, int(share * len(found)))], 1) if found else None
