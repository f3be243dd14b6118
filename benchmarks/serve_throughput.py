"""`python -m benchmarks.serve_throughput`: processor time a request of `effnet serve` against decoding and running.

The same JPEG files of imagenette_mini, the same Lite0 with its published weights, one thread an engine: in turns, the
server answers them over keep-alive connections, and this process prepares and runs them with `Predictor`. The figure is
the median ratio of the processor seconds of both for an image; the server's are those of its process, from /proc, so
that the client's own do not count. The details have requests a second, the time until it is ready, and its memory.
"""

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import effnet
from benchmarks.harness import ROOT, finish, options, shared

MOST_RATIO = 1.15
READY_SECONDS = 1.5
_WEIGHTS, _FILES, _CONNECTIONS = "pypi/efficientnet-lite0", 40, 4
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server, and the seconds until it was ready."""

    process: "subprocess.Popen[str]"
    port: int
    ready_s: float

    def cpu_s(self) -> float:
        """Return the processor seconds that it has used."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS

    def memory_mb(self) -> float:
        """Return its resident memory in 10^6 bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measure both sides in turns."""
    args = options(__doc__ or "", n=7)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    with tempfile.TemporaryDirectory(prefix="effnet-serve-") as name:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        server = start(bundle)
        try:
            samples, rate = compare(server, bundle, files, args)
            memory = server.memory_mb()
        finally:
            server.process.terminate()
            code = server.process.wait(60)
    ratios = [ours / plain for ours, plain in zip(samples["server_cpu_ms"], samples["plain_cpu_ms"], strict=True)]
    details = {
        "ready_s": round(server.ready_s, 3), "ready_goal_s": READY_SECONDS, "requests_a_second": round(rate, 1),
        "memory_mb": round(memory, 1), "exit_code": code, "images": len(files),
    }  # fmt: skip
    print(json.dumps(details))
    finish(
        "serve_throughput", args, figure=statistics.median(ratios), goal=MOST_RATIO, unit="of the processor time",
        better="lower", samples=samples | {"ratio": ratios}, details=details,
        missed=[f"ready after {server.ready_s:.2f} s, of at most {READY_SECONDS:g}"] * (server.ready_s > READY_SECONDS),
    )  # fmt: skip


def compare(
    server: Server, bundle: Path, files: list[bytes], args: argparse.Namespace
) -> tuple[dict[str, list[float]], float]:
    """Return the processor milliseconds an image of both sides, turn by turn, and the server's requests a second."""
    model = effnet.load(bundle)
    samples: dict[str, list[float]] = {"server_cpu_ms": [], "plain_cpu_ms": []}
    rates = []
    for turn in range(args.n + 1):
        before, begun = server.cpu_s(), time.perf_counter()
        send(server.port, files)
        rate, ours = len(files) / (time.perf_counter() - begun), server.cpu_s() - before
        start_s = time.process_time()
        for data in files:
            row = model.outputs(model.prepare(data)[None])
            assert np.isfinite(row).all()
        plain = time.process_time() - start_s
        if turn:  # the first warms both
            rates.append(rate)
            samples["server_cpu_ms"].append(1e3 * ours / len(files))
            samples["plain_cpu_ms"].append(1e3 * plain / len(files))
    return samples, statistics.median(rates)


def start(bundle: Path, *words: str, program: Sequence[str] = (sys.executable, "-m", "effnet")) -> Server:
    """Return a server that is ready; `words` are further options of `effnet`, or of another `program`."""
    command = [*program, "serve", str(bundle)]
    command += [] if "--port" in words else ["--port", "0"]
    command += [] if "--drain-seconds" in words else ["--drain-seconds", "0"]
    command += words
    command += ["--set", "serve.log_requests=false"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    found = re.search(r":(\d+);", process.stdout.readline())
    assert found, "the server ended before it listened"
    port = int(found[1])
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("GET", "/v2/health/ready")
        if connection.getresponse().status == 200:
            return Server(process=process, port=port, ready_s=time.perf_counter() - begun)
        connection.close()
        time.sleep(0.02)


def send(port: int, files: list[bytes]) -> None:
    """Send all files over a few connections at once; raise RuntimeError for any answer but 200."""

    def some(part: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for data in part:
            connection.request("POST", "/predict", body=data)
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise RuntimeError(f"the server answered {response.status}: {text[:300]!r}")
        connection.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(some, (files[i::_CONNECTIONS] for i in range(_CONNECTIONS))))


if __name__ == "__main__":
    main()
