"""Tells errors for want of memory from others."""

import errno

from effnet.errors import EffnetError

# The words of Python, numpy, torch, ONNX Runtime, the C++ library, the dynamic linker and thread libraries.
_WORDS = (
    "can't allocate memory", "cannot allocate memory", "failed to allocate memory", "unable to allocate", "bad_alloc",
    "bad allocation", "memoryerror", "not enough memory", "out of memory", "failed to map segment",
    "can't start new thread", "can't allocate lock", "can't allocate read lock", "resource unavailable",
    "resource temporarily unavailable",
)  # fmt: skip
_DEEPEST = 10


def is_shortage(error: BaseException) -> bool:
    """Return whether an error, by itself, means that no memory was left; in words of effnet's own it never does."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        # A process that cannot be begun is the latter, without a file.
        return error.errno == errno.ENOMEM or (error.errno == errno.EAGAIN and error.filename is None)
    return isinstance(error, Exception) and not isinstance(error, EffnetError) and says_shortage(str(error))


def says_shortage(text: str) -> bool:
    """Return whether the words of an error mean that no memory was left."""
    return any(words in text.lower() for words in _WORDS)


def shortage_behind(error: BaseException) -> BaseException | None:
    """Return the error for want of memory among `error` and its causes, or None."""
    found: BaseException | None = error
    for _ in range(_DEEPEST):
        if found is None or is_shortage(found):
            return found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return None
