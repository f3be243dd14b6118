"""One run a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from effnet.errors import InputError

LOCK = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other runs out of `folder`; the system lets go of it however this process ends.

    Raises InputError where another run is in it.
    """
    with open(folder / LOCK, "a+b") as file:
        if not _taken(file):
            file.seek(0)
            owner = file.read(20).decode("ascii", "replace").strip()
            raise InputError(
                f"only one run at a time can train in {folder}; process {owner or 'unknown'} does. "
                "Wait until it ends, or name another folder"
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


def _taken(file: BinaryIO) -> bool:
    """Returns whether this process has the file to itself now."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # a locked byte cannot be read, so one beyond the owner's number
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True
