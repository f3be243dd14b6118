"""Recognize out-of-memory errors."""

import errno

from effnet.errors import EffnetError

# The messages of Python, numpy, torch, ONNX Runtime, the C++ library, the dynamic linker and thread libraries.
_WORDS = (
    "can't allocate memory", "cannot allocate memory", "failed to allocate memory", "unable to allocate", "bad_alloc",
    "bad allocation", "memoryerror", "not enough memory", "out of memory", "failed to map segment",
    "can't start new thread", "can't allocate lock", "can't allocate read lock", "resource unavailable",
    "resource temporarily unavailable",
)  # fmt: skip
_DEEPEST = 10


def is_shortage(error: BaseException) -> bool:
    """Return whether an error, by itself, means that memory ran out; effnet's own errors never do."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        # A process that cannot be started raises EAGAIN, without a file name.
        return error.errno == errno.ENOMEM or (error.errno == errno.EAGAIN and error.filename is None)
    return isinstance(error, Exception) and not isinstance(error, EffnetError) and says_shortage(str(error))


def says_shortage(text: str) -> bool:
    """Return whether an error message means that memory ran out."""
    return any(words in text.lower() for words in _WORDS)


def shortage_behind(error: BaseException) -> BaseException | None:
    """Return the out-of-memory error among `error` and its causes, or None."""
    found: BaseException | None = error
    for _ in range(_DEEPEST):
        if found is None or is_shortage(found):
            return found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return None
