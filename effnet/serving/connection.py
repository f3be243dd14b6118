"""A connection of uvicorn with limits that uvicorn has not: the time and the size of a header, the rest of a body."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_HEADER, _MOST_CONNECTIONS = 64 * 1024, 4096


def connection_class(seconds: float) -> type[HttpToolsProtocol]:
    """Return the class of connections whose headers must be whole within `seconds`."""
    return type("Connection", (_Connection,), {"seconds": seconds})


class _Connection(HttpToolsProtocol):
    seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a header."""
        super().connection_made(transport)
        self._header_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
            return
        self._in_header = True
        self._begin_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._end_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes; close the connection if they are a header without end."""
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
        """Stop waiting: the body has a limit of its own."""
        self._in_header = False
        self._end_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting for the rest of a body that nobody reads; the connection is idle then."""
        self._end_timer()
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was answered before its end, but not forever."""
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread and not self.transport.is_closing() and self._timer is None:
            self._begin_timer()

    def _begin_timer(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._late)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
