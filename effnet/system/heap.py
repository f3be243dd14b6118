"""The memory of a process: what is freed goes back to the system, and what stays is not searched for garbage."""

import ctypes
import gc
import sys
from collections.abc import Mapping
from contextlib import suppress

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def trim_heap() -> None:
    """Give the system back what the C library has freed but keeps, if it is glibc; a few milliseconds.

    What opening a model takes for a while would else count as this process's memory as long as it lives.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library or system
        ctypes.CDLL(None).malloc_trim(0)


def use_one_heap() -> None:
    """Let all threads share one heap, if the C library is glibc; only before there are other threads.

    `trim_heap` leaves the end of each thread's own heap, which can be 30 MB of what a batch took.
    """
    _mallopt({_M_ARENA_MAX: 1})


def keep_freed() -> None:
    """Let the C library keep freed memory for what comes next, if it is glibc: it need not be cleared again."""
    _mallopt({_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: (1 << 31) - 1})


def _mallopt(options: Mapping[int, int]) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError, TypeError):  # another C library
            for name, value in options.items():
                ctypes.CDLL(None).mallopt(name, value)


def set_aside() -> None:
    """Take all that is alive out of later garbage collections; a program of these packages stops 40 ms for each."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
