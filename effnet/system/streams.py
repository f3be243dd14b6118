"""Prevent tracebacks from standard streams that are closed, full or gone."""

import os
import sys
from contextlib import suppress

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """Open closed standard streams on the null device, and let all of them accept names that are not valid text.

    Otherwise the next opened file gets the stream's descriptor, and the output of a library is written into it.
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
    """Redirect unwritable standard output and error to the null device: Python would fail on them at exit."""
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
