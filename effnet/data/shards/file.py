"""A shard as a file: its location, known properties, and file descriptor while it is open."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effnet.data.sources.names import is_url
from effnet.errors import DataError
from effnet.system.files import open_regular
from effnet.system.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A tar file of images; `location` is a path or URL, `name` its name in messages.

    Unknown values are 0 (size and count) or empty (split and hash).
    """

    location: str
    name: str
    split: str = ""
    size_bytes: int = 0
    count: int = 0
    sha256: str = ""

    @property
    def remote(self) -> bool:
        """Whether it must be downloaded."""
        return is_url(self.location)


class Handle:
    """An open file that is closed when no thread uses it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be gone already
        close(self.descriptor)


def open_handle(path: Path) -> Handle:
    """Open a regular file for reading; raise OSError for anything else."""
    with open_regular(path) as file:
        return Handle(os.dup(file.fileno()))


def changed(shard: Shard, size: int) -> DataError:
    """Return the error for a shard whose size has changed to `size` bytes."""
    return DataError(
        f"{shard.name} must not change: it was listed with {shard.size_bytes:,} bytes, but now has {size:,}; start "
        "again with shards that do not change"
    )


def unreadable(shard: Shard, error: OSError) -> DataError:
    """Return the error for a shard that cannot be read."""
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    advice = "put it back" if gone else "check its permissions and its disk"
    return DataError(
        f"the shard {printable(shard.location)} must be readable, but it is not ({error.strerror}); {advice}"
    )
