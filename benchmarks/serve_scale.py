"""`python -m benchmarks.serve_scale`: the simulation of `effnet serve --plan` against 1, 2 and 3 real replicas.

Real servers answer an open-loop load behind Debian's HAProxy, with engines that sleep for a fixed time an image instead
of computing, so that replicas do not share cores: what is compared is queues, batches, deadlines and the balancer. At
each of three loads, from moderate to overload, the 99th percentile and the answers within the deadline a second are
compared with the simulation of requests at the same rate. The figure is the largest relative difference.
`--n` is the number of requests of each run.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import effnet
from benchmarks.harness import finish, options, shared
from benchmarks.open_loop import Sent, open_loop
from benchmarks.serve_reload import Fleet as Real
from effnet.serving.plan.simulate import Fleet, Service, simulate

GOAL = 0.15
_WEIGHTS, _FILES = "pypi/efficientnet-lite0", 4
_SLEEP_S, _ENGINES, _DEADLINE_S, _REPLICAS, _LOADS = 0.1, 2, 0.4, (1, 2, 3), (0.6, 0.9, 1.5)


def main() -> None:
    """Compare every number of replicas at every load."""
    args = options(__doc__ or "", n=1_000)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    rows = []
    with tempfile.TemporaryDirectory(prefix="effnet-scale-") as name:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        for replicas in _REPLICAS:
            rows += compared(bundle, Path(name), replicas, files, args)
    differences = [row[key] for row in rows for key in ("p99_difference", "goodput_difference")]
    print(json.dumps(rows))
    finish(
        "serve_scale", args, figure=max(differences), goal=GOAL, unit="of the measured value", better="lower",
        samples={"difference": differences}, details={"rows": rows, "sleep_s": _SLEEP_S, "engines": _ENGINES},
    )  # fmt: skip


def compared(
    bundle: Path, folder: Path, replicas: int, files: list[bytes], args: argparse.Namespace
) -> list[dict[str, float]]:
    """Return a row for each load."""
    program = (sys.executable, "-m", "benchmarks.serve_scale", "--sleep")
    words = ("--workers", str(_ENGINES), "--deadline-ms", f"{1e3 * _DEADLINE_S:g}", "--set", "serve.max_batch=1")
    real, rows = Real(bundle, folder, replicas=replicas, words=words, program=program, retries=0), []
    try:
        service = measured(real, files)
        for load in _LOADS:
            rate = load * replicas * _ENGINES / service.image_seconds
            sent = asyncio.run(open_loop(real.port, files, rate=rate, count=args.n, seed=replicas))
            rows.append({"replicas": replicas, "load": load, **row(sent, service, replicas, rate, args.n)})
            print(json.dumps(rows[-1]), file=sys.stderr)
            time.sleep(2 * _DEADLINE_S)
    finally:
        real.end()
    return rows


def measured(real: Real, files: list[bytes]) -> Service:
    """Return the time of an engine that sleeps, and the rest of a request, from requests one after the other."""
    sent = [asyncio.run(open_loop(real.port, files, rate=1e9, count=1, seed=number))[0] for number in range(20)]
    seconds = sorted(each.seconds for each in sent)
    return Service(decode=[0.0], run={1: [_SLEEP_S]}, other=max(0.0, seconds[len(seconds) // 2] - _SLEEP_S))


def row(sent: list[Sent], service: Service, replicas: int, rate: float, count: int) -> dict[str, float]:
    """Return what was measured, what the simulation says, and how far apart they are."""
    arrivals = np.cumsum(np.random.default_rng(replicas).exponential(1 / rate, count))
    fleet = Fleet(replicas=replicas, engines=_ENGINES, deadline_s=_DEADLINE_S, balance="least")
    said = simulate(arrivals, service, fleet)
    answered = [each.seconds for each in sent if each.code == 200]
    p99 = float(np.quantile(answered, 0.99))
    goodput = sum(seconds <= _DEADLINE_S + service.batch_seconds + service.other for seconds in answered) / float(
        arrivals[-1]
    )
    return {
        "rate": rate, "p99_s": p99, "simulated_p99_s": said.p99_s, "p99_difference": abs(said.p99_s / p99 - 1),
        "goodput": goodput, "simulated_goodput": said.goodput,
        "goodput_difference": abs(said.goodput / goodput - 1), "failed": sum(e.code not in (200, 503) for e in sent),
    }  # fmt: skip


def serve_sleeping() -> None:
    """Run `effnet serve` with engines that sleep; loading and proving are real."""
    from effnet.__main__ import main as run
    from effnet.serving.batches import work

    compute = work.Runner._compute

    def sleep(self: work.Runner, number: int, read: list[tuple[work.Task, object]]) -> list[object]:
        time.sleep(_SLEEP_S * len(read))
        return cached(self, number, read)

    kept: dict[int, list[object]] = {}

    def cached(self: work.Runner, number: int, read: list[tuple[work.Task, object]]) -> list[object]:
        if len(read) not in kept:
            kept[len(read)] = compute(self, number, read)  # type: ignore[arg-type]
        return kept[len(read)]

    work.Runner._compute = sleep  # type: ignore[method-assign, assignment]
    run()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sleep"]:
        sys.argv = [sys.argv[0], *sys.argv[2:]]
        serve_sleeping()
    else:
        main()
