"""A connection of uvicorn with what uvicorn has not: limits of a header, of the rest of a body, and a quick refusal.

A server in an overload refuses most requests. It answers these as soon as their header is whole, without a task and
routes; and it closes a connection only after the client has sent its body, since the system would answer the rest of
that with a reset, which may reach the client before the answer does.
"""

import asyncio
import json
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from effnet.serving.http.errors import HttpError

Refusal = Callable[[MutableMapping[str, Any]], HttpError | None]

_MOST_HEADER, _MOST_CONNECTIONS = 64 * 1024, 4096
# How long a client may go on sending after it was answered on a connection that closes.
_LINGER_SECONDS = 2.0
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_REASONS = {503: "Service Unavailable"}


def connection_class(seconds: float, refusal: Refusal) -> type[HttpToolsProtocol]:
    """Return the class of connections whose headers must be whole within `seconds`.

    `refusal(scope)` returns the error for a request that is not accepted; it is called with its header.
    """
    return type("Connection", (_Connection,), {"seconds": seconds, "refusal": staticmethod(refusal)})


def _without_upgrade(data: bytes) -> bytes:
    """Return the first bytes of a request without the offer of another protocol, which a server may ignore.

    Java's client offers HTTP/2 with each request, and the parser takes what follows an offer for that protocol, not for
    a body. Source: RFC 9110, section 7.8.
    """
    head, blank, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + blank + body


class _Transport(asyncio.Transport):
    """The transport of a connection: `close` waits for what the client still sends, if `unread()` says so."""

    def __init__(
        self, inner: asyncio.Transport, *, unread: Callable[[], bool], linger: Callable[[], None]
    ) -> None:  # fmt: skip
        super().__init__()
        self.inner, self.lingers = inner, False
        self._unread, self._linger = unread, linger

    def write(self, data: Any) -> None:
        """Send bytes, unless the answer was the last one."""
        if not self.lingers:
            self.inner.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self.lingers or self.inner.is_closing()

    def close(self) -> None:
        """Send what was written, and close once the client has sent its body."""
        if self.is_closing():
            return
        if self._unread() and self.inner.can_write_eof():
            self.lingers = True
            self.inner.write_eof()
            self._linger()
        else:
            self.inner.close()

    def abort(self) -> None:
        """Close at once."""
        self.inner.abort()


@dataclass(slots=True)
class _Refused:
    """What uvicorn asks of a request that was answered before its body came."""

    response_complete: bool = True
    more_body: bool = True
    message_event: asyncio.Event = field(default_factory=asyncio.Event)


class _Connection(HttpToolsProtocol):
    seconds = 10.0
    refusal: Refusal

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a header."""
        super().connection_made(transport)
        self._outer = _Transport(transport, unread=self._unread, linger=self._linger)
        self.transport = self._outer
        self._header_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
            return
        # Whether the next bytes begin or continue a header.
        self._in_header = self._at_head = True
        self._begin_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._end_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes; close the connection if they are a header without end."""
        if self._at_head and b"pgrade:" in data:
            data = _without_upgrade(data)
        super().data_received(data)
        self._header_bytes = self._header_bytes + len(data) if self._in_header else 0
        if self._header_bytes > _MOST_HEADER and not self.transport.is_closing():
            self.send_400_response("The header must have at most 64 KiB.")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a header."""
        super().on_message_begin()
        self._in_header = True
        if self._timer is None:
            self._begin_timer()

    def on_headers_complete(self) -> None:
        """Stop waiting: the body has a limit of its own. Refuse the request, or begin its task."""
        self._in_header = self._at_head = False
        if self.transport.is_closing():
            return
        self._end_timer()
        # A client of 1.0 does not know interim answers. Source: RFC 9110, section 10.1.1.
        self.expect_100_continue &= self.parser.get_http_version() != "1.0"
        if (self.cycle is None or self.cycle.response_complete) and (error := self._refusal()) is not None:
            self._refuse(error)
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting for the rest of a body that nobody reads; the connection is idle then, or is closed."""
        if self._outer.lingers:
            self._outer.inner.close()
            return
        self._at_head = True
        self._end_timer()
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self.cycle.more_body = False
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was answered before its end, but not forever."""
        unread = self._unread()
        super().on_response_complete()
        if unread and not self.transport.is_closing() and self._timer is None:
            self._begin_timer()

    def _refusal(self) -> HttpError | None:
        path, _, query = self.url.partition(b"?")
        scope = {
            "type": "http", "method": self.parser.get_method().decode("ascii"), "path": path.decode("latin-1"),
            "query_string": query, "headers": self.headers, "client": self.client,
        }  # fmt: skip
        return type(self).refusal(scope)

    def _refuse(self, error: HttpError) -> None:
        """Answer without a task; the body is dropped as it comes."""
        keep = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        body = json.dumps({"error": error.message}, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", **error.headers, "content-length": str(len(body))}
        if not keep:
            headers["connection"] = "close"
        lines = [f"HTTP/1.1 {error.status} {_REASONS.get(error.status, 'Error')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self.cycle = _Refused()  # type: ignore[assignment]
        self.server_state.total_requests += 1
        if keep:
            self._begin_timer()
        else:
            self.transport.close()

    def _unread(self) -> bool:
        """Whether the client has been answered before it has sent its body."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def _linger(self) -> None:
        self._end_timer()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(min(_LINGER_SECONDS, self.seconds), self._late)

    def _begin_timer(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._late)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._outer.inner.is_closing():
            self._outer.inner.close()
