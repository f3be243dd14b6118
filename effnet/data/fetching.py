"""Files of the network: completed beside their place, resumed where a connection broke off; and where they are kept."""

import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from effnet.system.home import private_folder

Progress = Callable[[int, int], None]

_CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0


class Dropped(Exception):
    """The connection could not be made or ended too soon; the argument says how."""


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
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass  # Windows, and disks of networks that lock nothing
        yield


def complete(url: str, part: Path, *, progress: Progress | None = None) -> str:
    """Completes `part`, going on as long as each connection brings something; returns the server's MD5, or nothing.

    `progress` is called with the bytes so far and all of them, 0 where the server does not say. Raises HTTPError,
    closed already, where the server refuses, Dropped where the last connection brought nothing.
    """
    while True:
        before = size_on_disk(part)
        try:
            return _receive(url, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise
        except Dropped:
            if size_on_disk(part) <= before:
                raise


def size_on_disk(path: Path) -> int:
    """Returns the size of a file in bytes, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def file_digest(path: str | os.PathLike[str], kind: str) -> str:
    """Returns the hash of a file in hexadecimal; `kind` is hashlib's name, such as sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _receive(url: str, part: Path, progress: Progress | None) -> str:
    """Makes one connection and appends what comes; raises Dropped where it ends too soon."""
    start = size_on_disk(part)
    request = urllib.request.Request(url, headers={"User-Agent": "effnet"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = _talk(urllib.request.urlopen, request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
            return _server_md5(error.headers)
        part.unlink()  # longer than the file that lies there now
        return _receive(url, part, progress)
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        done = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        with open(part, "ab" if resumed else "wb") as file:
            while chunk := _talk(response.read, _CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
        if done < total:
            raise Dropped(f"the connection ended after {done:,} of {total:,} bytes")
        return _server_md5(response.headers)


def _talk(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Returns what a call over the network returns; its failure, which is no answer, becomes Dropped."""
    try:
        return call(*arguments, **options)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _server_md5(headers: Any) -> str:
    """Returns the MD5, in hexadecimal, that Google's storage sends beside a file, or an empty text."""
    found = re.search(r"\bmd5=([\w+/]{22}==)", ",".join(headers.get_all("x-goog-hash", [])))
    return b64decode(found[1]).hex() if found else ""
