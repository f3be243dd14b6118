"""File locks: one process at a time writes to a place, and the system frees the lock however its holder ends."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from effnet.errors import InputError

try:
    import fcntl
except ImportError:  # a system without flock: nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCKS = fcntl is not None
"""Whether this system has file locks."""

SCRATCH = ".effnet-"
"""Name prefix of temporary folders; the next process that holds the folder's lock removes old ones."""

_OWNER_BYTES = 300


@contextmanager
def alone_in(place: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other effnet processes from writing to `place`, a folder or a file, which need not exist yet.

    The lock is a file beside `place`, so that nothing is left in a finished folder, and is removed at the end. All
    names of a place share one lock. Temporary folders that a killed process left in `place` are removed.

    Raises InputError if another process, or this one, is writing to it already. On file systems without locks, and if
    no lock file can be created, no process is excluded.
    """
    if fcntl is None:
        yield
        return
    whole = Path(os.path.realpath(place))
    beside = whole.with_name(f".{whole.name}.effnet-lock")
    made = _make_parents(whole.parent)
    try:
        descriptor, is_file = _locked(beside, whole)
        try:
            sweep(whole)
            yield
        finally:
            if descriptor is not None:
                if is_file:
                    with suppress(OSError):
                        beside.unlink()
                os.close(descriptor)
    finally:
        for folder in made:
            with suppress(OSError):  # it is in use now
                folder.rmdir()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process, and no other thread of this one, holds the lock file; the file is not removed."""
    with open(lock, "ab") as file:
        _flock(file.fileno(), wait=True)
        yield


def in_use(lock: Path) -> bool:
    """Return whether a process, or another thread of this one, holds a lock taken by `alone`."""
    try:
        with open(lock, "ab") as file:
            return not _flock(file.fileno(), wait=False)
    except OSError:
        return False


def _flock(descriptor: int, *, wait: bool) -> bool:
    """Return whether the lock was acquired; systems and file systems without locks grant it to everybody."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Remove temporary folders left by killed processes in `folder`; this process must hold its lock."""
    for path in list(folder.rglob(f"{SCRATCH}*") if deep else folder.glob(f"{SCRATCH}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _make_parents(folder: Path) -> list[Path]:
    """Return the folders that were created, innermost first; one that cannot be created fails when it is written to."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _locked(beside: Path, whole: Path) -> tuple[int | None, bool]:
    """Return the open lock, and whether it is the file `beside`; None if nothing can be locked."""
    while True:
        is_file = True
        try:
            descriptor = _open(beside)
        except OSError:  # a folder without write permission; the place itself can be locked if it exists
            is_file = False
            try:
                descriptor = os.open(whole, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                return None, False
        try:
            _take(descriptor, whole, told=is_file)
        except BaseException:
            os.close(descriptor)
            raise
        # The previous holder may have removed the file by now: then this lock excludes nobody.
        if not is_file or _is_at(descriptor, beside):
            break
        os.close(descriptor)
    if is_file:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
    return descriptor, is_file


def _open(path: Path) -> int:
    """Return the open lock file, created if there is none; another user's may only be readable."""
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:
        descriptor = os.open(path, flags & ~os.O_CREAT | os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return descriptor


def _take(descriptor: int, whole: Path, *, told: bool) -> None:
    """Lock the file; raise InputError with the holder's process id if another process has it."""
    if not _flock(descriptor, wait=False):
        raise InputError(
            f"only one effnet process at a time may write to {whole}; {_owner(descriptor, told=told)} does. Wait until "
            "it ends, or name another --out"
        )


def _owner(descriptor: int, *, told: bool) -> str:
    text = os.pread(descriptor, _OWNER_BYTES, 0).decode("ascii", "replace") if told else ""
    number, _, host = text.partition(" ")
    if not number.isdecimal():
        return "another process"
    return f"process {number}" + ("" if host == socket.gethostname() else f" of {host}" if host.isprintable() else "")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
