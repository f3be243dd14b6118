"""A real server of files in memory, for tests of what is downloaded."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """What is served by path, after how many bytes each connection ends in turn, and what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.drop_after: list[int] = []
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        served = self.server.served  # type: ignore[attr-defined]
        name = self.path.partition("?")[0].lstrip("/")
        served.asked.append(name)
        content, asked = served.files.get(name), self.headers.get("Range")
        tag = f'"{zlib.crc32(content or b""):x}"'
        asked = asked if self.headers.get("If-Range", tag) == tag else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if content is None:
            self.send_response(404)
            content = b""
        elif start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        length = served.drop_after.pop(0) if served.drop_after and content else len(content)
        self.wfile.write(content[:length])
        self.close_connection = length < len(content)


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    """Run a server on a free local port until the end of the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving() -> Iterator[FileServer]:
    """Serve files until the end of the context."""
    with running(_Handler) as server:
        served = server.served = FileServer(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
        yield served
