"""A server that answers each connection with given bytes, valid HTTP or not."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = bytes | Callable[[socket.socket], None]


class RawServer:
    """`answers` go to one connection each, the last to all that follow; `asked` are the heads of their requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []
        self.asked: list[str] = []

    def take(self, head: bytes) -> Answer:
        """Return the answer to the next request."""
        self.asked.append(head.decode("latin-1"))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def head(*lines: str, status: str = "200 OK") -> bytes:
    """Return the head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode("latin-1")


def whole(content: bytes, *lines: str) -> bytes:
    """Return a proper answer."""
    return head(f"Content-Length: {len(content)}", *lines) + content


def endless(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Return an answer that continues until the client disconnects."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)

    return answer


def _serve(listener: socket.socket, server: RawServer) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request and (more := connection.recv(65536)):
                request += more
            answer = server.take(request)
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)


@contextmanager
def serving_raw() -> Iterator[RawServer]:
    """Serve one connection at a time until the end of the context."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(listener, server), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=300)
