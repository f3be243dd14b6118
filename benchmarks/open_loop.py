"""Send requests at random times of a Poisson process, whether or not earlier ones are answered.

So waiting is not hidden: latency counts from the scheduled time. How late the sender itself was is kept apart.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass


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
    late, code, answer = time.monotonic() - at, 0, b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + data)
        answer = await reader.read(-1)
        writer.close()
        code = int(answer.split(None, 2)[1])
    except (OSError, IndexError, ValueError):
        pass
    return Sent(code=code, seconds=time.monotonic() - at, late=late, overdue=b"an accepted request" in answer)


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
