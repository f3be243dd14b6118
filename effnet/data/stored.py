"""Sources of an image: its own file, memory, or storage inside something larger."""

from typing import Protocol

import numpy as np


class Stored(Protocol):
    """An encoded image inside something larger: a member of a shard, a row of a table."""

    @property
    def name(self) -> str:
        """The name in messages and reports, unique within a data set."""
        ...

    @property
    def block(self) -> int:
        """The number of the part that holds it; a part is available whole or not at all."""
        ...

    def read(self) -> bytes:
        """Return the encoded image, from any thread.

        Raises ImageError if this image cannot be read, DataError if the part that holds it cannot.
        """
        ...


Source = str | np.ndarray | Stored
"""A path, uint8 [H, W, C], or an image that is stored elsewhere."""


def source_name(source: Source, default: str) -> str:
    """Return the path or name of an image, or `default` for one in memory, which has no name."""
    if isinstance(source, str):
        return source
    return default if isinstance(source, np.ndarray) else source.name


def encoded(source: str | Stored) -> str | bytes:
    """Return the decoder's input: the path of a file, or the bytes of an image that is stored elsewhere."""
    return source if isinstance(source, str) else source.read()
