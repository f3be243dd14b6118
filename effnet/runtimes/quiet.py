"""Silence the converters' messages about their own internals."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

# torchao reports GPU kernels that it does not load, torch the types that torchao registers, coremltools the torch
# version that it was tested with.
_CHATTER = ("torchao", "torch.utils._pytree", "coremltools")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, progress bars and log records below errors while a converter is imported and runs."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # Filters by message would need an update with each package's release; none of these warnings is about our
        # graph.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
