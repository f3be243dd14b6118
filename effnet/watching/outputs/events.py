"""Events as JSON objects, one a line: what happened in which source, when, and how old the frame was."""

import json
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from effnet.errors import InputError
from effnet.watching.record import Note

Take = Callable[[Mapping[str, Any]], None]
"""Gets an event; it must be fast, and must not raise."""


def event_of(note: Note, *, source: str, at: float | None, age: float | None, wall: float) -> dict[str, Any]:
    """Return a note as an event.

    `wall` is the time of the day at which the frame arrived, in seconds since 1970; `at` its time in the source and
    `age` the time from its arrival to its answer, in seconds, None without a frame.
    """
    event: dict[str, Any] = {
        "event": note.kind,
        "time": datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds"),
        "source": source,
    }
    if at is not None:
        event["at"] = round(at, 3)
    if note.rule:
        event["rule"] = note.rule
    event |= note.facts
    if age is not None:
        event["age_ms"] = round(1e3 * age, 3)
    return event


class Lines:
    """Writes events to a file at `path`, after what it has, or to standard output; a line is whole."""

    def __init__(self, path: str | None = None) -> None:
        self._turn = threading.Lock()
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
            except OSError as error:
                raise InputError(f"--events must be a file that can be written; {path}: {error.strerror}") from error

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event."""
        line = json.dumps(event, ensure_ascii=True, allow_nan=False) + "\n"
        # A full disk or a closed pipe must not end the watch.
        with suppress(OSError, ValueError), self._turn:
            stream = self._file or sys.stdout
            stream.write(line)
            stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
