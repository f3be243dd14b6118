"""What converters tell of their own insides, kept from the user."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

# torchao tells of kernels for GPUs that it does not load, torch of types that torchao registers, coremltools of the
# torch that it was tested with.
_CHATTER = ("torchao", "torch.utils._pytree", "coremltools")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, progress bars and log records below errors while a converter is imported and runs."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # Filters by message would have to follow each package's releases; none of these warnings is about our graph.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
