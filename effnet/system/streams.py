"""Standard streams that are closed, full or gone end no command with a traceback."""

import os
import sys
from contextlib import suppress

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """Give standard streams that are closed the null device, and let none stumble over a name that is no valid text.

    Else the next file that is opened gets the stream's number, and what a library prints is written into it.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")


def drop_unwritten() -> None:
    """Send to the null device what standard output and error do not take: Python would fail at it when it ends."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                _to_null(number)
            with suppress(OSError, ValueError):
                stream.flush()


def _to_null(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)
        os.close(opened)
