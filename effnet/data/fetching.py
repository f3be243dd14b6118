"""Where downloads are kept, whether they are allowed, and that one process at a time makes one."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.system.home import private_folder

Progress = Callable[[int, int], None]


def cache_folder() -> Path:
    """Returns the folder for downloads and features: EFFNET_CACHE, else `effnet` in the user's cache folder.

    A user without a home folder has it in a private temporary folder.
    """
    if own := os.environ.get("EFFNET_CACHE"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "effnet"
    try:
        home = Path.home()
    except RuntimeError:  # a user without a name and a home
        return private_folder() / "effnet"
    return home / ("Library/Caches/effnet" if sys.platform == "darwin" else ".cache/effnet")


def network_forbidden() -> bool:
    """Returns whether the environment says, as to huggingface_hub, that nothing may be downloaded."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Lets one process, and one thread of it, go on at a time; the system frees the lock when its holder ends."""
    with open(lock, "ab") as file:
        _lock(file.fileno(), wait=True)
        yield


def in_use(lock: Path) -> bool:
    """Returns whether a process, or another thread of this one, holds a lock of `alone`."""
    try:
        with open(lock, "ab") as file:
            return not _lock(file.fileno(), wait=False)
    except OSError:
        return False


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Returns whether the lock was to be had; Windows, and disks of networks that lock nothing, give it to all."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def file_digest(path: str | os.PathLike[str], kind: str) -> str:
    """Returns the hash of a file in hexadecimal; `kind` is hashlib's name, such as sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
