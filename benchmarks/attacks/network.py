"""Item 6: servers of shards that send something else, too much, or next to nothing."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.attacks.ground import Attack, Command, Ground

_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>" * 200
# Far above the limit of the attacks, far below what would hurt this machine.
_MOST_BYTES = 3 * 10**9
_LIMIT_GB = "0.05"

requests: Counter[str] = Counter()
sent: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if self.path.endswith(".json"):
            self.send_error(404)
            return
        requests[kind] += 1
        try:
            getattr(self, f"_{kind}")()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _head(self, code: int = 200, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def _page(self) -> None:
        self._head(Content_Length=len(_PAGE), Content_Type="text/html")
        self.wfile.write(_PAGE)

    def _announced(self) -> None:
        self._head(Content_Length=10**13)
        self._pour("announced", lambda data: data)

    def _endless(self) -> None:
        self._head(Transfer_Encoding="chunked")
        self._pour("endless", lambda data: b"%x\r\n%s\r\n" % (len(data), data))

    def _pour(self, kind: str, wrap: Callable[[bytes], bytes]) -> None:
        data = bytes(10**6)
        while sent[kind] < _MOST_BYTES:
            self.wfile.write(wrap(data))
            sent[kind] += len(data)
        self.close_connection = True

    def _drip(self) -> None:
        """A byte a connection."""
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        size = 23_434
        headers = {"Content_Length": size - start, "Connection": "close"}
        if start:
            self._head(206, Content_Range=f"bytes {start}-{size - 1}/{size}", **headers)
        else:
            self._head(**headers)
        self.wfile.write(b"a")
        self.close_connection = True

    def _elsewhere(self) -> None:
        self._head(302, Location="ftp://127.0.0.1/train-000000.tar", Content_Length=0)

    def _circle(self) -> None:
        self._head(302, Location=f"{self.path}x", Content_Length=0)

    def _garbage(self) -> None:
        self.wfile.write(b"\xff\x00 nonsense\r\n" + b"a" * 100_000 + b"\r\n\r\n")
        self.close_connection = True

    def _headers(self) -> None:
        self.send_response(200)
        for number in itertools.count():
            if number == 50_000:
                break
            self.send_header(f"X-{number}", "a" * 1000)
        self.end_headers()
        self.close_connection = True

    def _negative(self) -> None:
        self._head(Content_Length=-5)
        self.wfile.write(b"a" * 1000)
        self.close_connection = True

    def _slow(self) -> None:
        """A byte a second, and so alive for a reader that waits 30 seconds for each."""
        self._head(Content_Length=23_434)
        for _ in range(300):
            self.wfile.write(b"a")
            self.wfile.flush()
            time.sleep(1)


@cache
def _server() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def served(kind: str, *, seconds: float = 60) -> Callable[[Ground], Sequence[Command]]:
    """Return an attack that reads shards from such a server, twice: a broken answer must not stay in the cache."""

    def prepare(ground: Ground) -> Sequence[Command]:
        requests[kind] = sent[kind] = 0
        url = f"http://127.0.0.1:{_server()}/{kind}/train-000000.tar"
        env = {"HF_HUB_OFFLINE": None, "EFFNET_SHARD_CACHE_GB": _LIMIT_GB}
        return [Command(words=("data", "inspect", url), env=env, says=f"/{kind}/", seconds=seconds)] * 2

    return prepare


def _modest(kind: str) -> Callable[[Ground], str]:
    def check(ground: Ground) -> str:
        kept = sum(path.stat().st_size for path in ground.path("cache").rglob("*") if path.is_file())
        if kept > float(_LIMIT_GB) * 1e9:
            return f"{kept / 1e6:.0f} MB stayed in the cache"
        if sent[kind] > 4 * float(_LIMIT_GB) * 1e9:
            return f"{sent[kind] / 1e6:.0f} MB were taken"
        tars = list(ground.path("cache").rglob("*.tar"))
        if tars:
            return f"{tars[0].name} stayed in the cache"
        return f"{requests[kind]} requests were made" if requests[kind] > 60 else ""

    return check


_KINDS = {
    "page": "a web page in place of a shard",
    "announced": "a shard of 10 TB",
    "endless": "a shard without an end",
    "drip": "a byte a connection",
    "elsewhere": "a redirection to another protocol",
    "circle": "redirections without an end",
    "garbage": "an answer that is not HTTP",
    "headers": "50,000 headers",
    "negative": "a negative length",
}
ATTACKS = tuple(Attack(item=6, name=name, prepare=served(kind), after=_modest(kind)) for kind, name in _KINDS.items())
