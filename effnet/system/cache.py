"""The cache folder for downloads, and whether downloads are allowed."""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from effnet.system.home import private_folder

Progress = Callable[[int, int], None]


def cache_folder() -> Path:
    """Return the folder for downloads and features: EFFNET_CACHE, else `effnet` in the user's cache folder.

    For a user without a home folder it is in a private temporary folder.
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
    """Return whether HF_HUB_OFFLINE forbids downloads, as for huggingface_hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def file_digest(path: str | os.PathLike[str], kind: str) -> str:
    """Return the hash of a file in hexadecimal; `kind` is hashlib's name, such as sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
