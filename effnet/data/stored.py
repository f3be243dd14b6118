"""Where an image lies: in a file of its own, in memory, or stored within something larger."""

from typing import Protocol

import numpy as np


class Stored(Protocol):
    """An encoded image inside something larger: a member of a shard, a row of a table."""

    @property
    def name(self) -> str:
        """How messages and reports call it; no two images of a data set share it."""
        ...

    @property
    def block(self) -> int:
        """The number of the part that it lies in; a part is had whole or not at all."""
        ...

    def read(self) -> bytes:
        """Return the encoded image, from any thread.

        Raises ImageError where this one cannot be read, DataError where what holds it and others cannot.
        """
        ...


Source = str | np.ndarray | Stored
"""A path, uint8 [H, W, C], or an image that is stored elsewhere."""


def source_name(source: Source, default: str) -> str:
    """Return the path or name of an image, `default` for one in memory, which has none."""
    if isinstance(source, str):
        return source
    return default if isinstance(source, np.ndarray) else source.name


def encoded(source: str | Stored) -> str | bytes:
    """Return what the decoder takes: the path of a file, or the bytes of an image that is stored elsewhere."""
    return source if isinstance(source, str) else source.read()
