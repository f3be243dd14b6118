"""Return freed memory to the operating system."""

import ctypes
from contextlib import suppress


def trim_heap() -> None:
    """Give the system back what the C library has freed but keeps, if it is glibc; a few milliseconds.

    What opening a model takes for a while would else count as this process's memory as long as it lives.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library or system
        ctypes.CDLL(None).malloc_trim(0)
