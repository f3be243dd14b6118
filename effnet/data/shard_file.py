"""A shard as a file: where it lies, what is known of it, and its descriptor while it is open."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effnet.data.places import is_url
from effnet.errors import DataError
from effnet.system.files import open_regular
from effnet.system.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A tar file of images; `location` is a path or URL, `name` how messages call it.

    What is not known beforehand is 0 (size and count) or empty (split and hash).
    """

    location: str
    name: str
    split: str = ""
    size_bytes: int = 0
    count: int = 0
    sha256: str = ""

    @property
    def remote(self) -> bool:
        """Whether it has to be downloaded."""
        return is_url(self.location)


class Handle:
    """An open file, which closes itself once no thread reads from it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be gone by now
        close(self.descriptor)


def open_handle(path: Path) -> Handle:
    """Open a regular file for reading; anything else is an OSError."""
    with open_regular(path) as file:
        return Handle(os.dup(file.fileno()))


def changed(shard: Shard, size: int) -> DataError:
    """Return the error for a shard that has `size` bytes and should have others."""
    return DataError(
        f"{shard.name} must stay as it was listed, {shard.size_bytes:,} bytes, but now has {size:,}; begin anew with "
        "shards that do not change"
    )


def unreadable(shard: Shard, error: OSError) -> DataError:
    """Return the error for a shard that the system does not let be read."""
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    advice = "put it back" if gone else "check its permissions and its disk"
    return DataError(
        f"the shard {printable(shard.location)} must be readable, but it is not ({error.strerror}); {advice}"
    )
