"""A home folder for users without one: an unnamed user in a container, a service without an environment."""

import atexit
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path


def give_home() -> str:
    """Set HOME to a private temporary folder if this user has no home folder.

    Return a sentence about it the first time, when the folder is created, else an empty string. Other packages look
    for a home folder too; some fail without one, or write to a folder named "~".
    """
    if os.environ.get("HOME"):
        return ""
    os.environ.pop("HOME", None)  # an empty value would mean the root folder
    try:
        Path.home()
    except (RuntimeError, KeyError):
        known = _own_folder().exists()
        folder = private_folder()
        os.environ["HOME"] = str(folder)
        if not known:
            return f"this user has no home folder; caches go to {folder}. Set HOME or EFFNET_CACHE to another folder"
    return ""


@cache
def private_folder() -> Path:
    """Return a temporary folder that only this user can read: the user's own, or a new one if that is not safe."""
    path = _own_folder()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not _is_private(path):  # created by another user, to receive this user's files
            path = Path(tempfile.mkdtemp(prefix="effnet-"))
            atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _own_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"effnet-{os.getuid()}"


def _is_private(path: Path) -> bool:
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
