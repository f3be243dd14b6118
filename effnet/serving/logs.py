"""Log lines for programs: one JSON object a line, on standard error."""

import json
import re
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

# Source: W3C Trace Context, section 3.2.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Log:
    """Writes lines to `stream`, whole ones from any thread; standard error by default."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream, self._turn = stream, threading.Lock()

    def __call__(self, event: str, **facts: Any) -> None:
        """Write one line; facts that are None are left out."""
        data = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        data |= {name: fact for name, fact in facts.items() if fact is not None}
        line = json.dumps(data, default=str) + "\n"
        # A full disk or a closed pipe must not end the server.
        with suppress(OSError, ValueError), self._turn:
            stream = self._stream or sys.stderr
            stream.write(line)
            stream.flush()


def trace_of(header: str | None) -> str | None:
    """Return a request's traceparent if it is a valid one."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
