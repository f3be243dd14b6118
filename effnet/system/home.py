"""A home folder for whoever has none: a container's user without a name, a service without an environment."""

import atexit
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path


def give_home() -> str:
    """Set HOME to a private temporary folder if this user has no home.

    Return a sentence about it the first time, when the folder is made, else an empty text. Packages look for a home on
    their own; some fail without one, or write to a folder named "~".
    """
    if os.environ.get("HOME"):
        return ""
    os.environ.pop("HOME", None)  # an empty one would be the root folder
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
    """Return a temporary folder that only this user can look into: the user's, or if that is not safe a fresh one."""
    path = _own_folder()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not _is_private(path):  # made by somebody else, for this user to write into
            path = Path(tempfile.mkdtemp(prefix="effnet-"))
            atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _own_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"effnet-{os.getuid()}"


def _is_private(path: Path) -> bool:
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
