"""Remote shards in the cache folder: downloaded whole, checked before they are kept, and limited in total size.

Neither the server nor a file in the cache is trusted: a shard is used only if it is the one that was listed, or can be
listed now.
"""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from effnet.data.shards.file import Handle, Shard, open_handle
from effnet.data.shards.tar import Member
from effnet.errors import DataError
from effnet.system.cache import cache_folder, file_digest, network_forbidden
from effnet.system.download import complete, discard, size_on_disk
from effnet.system.files import read_json
from effnet.system.http import Dropped, Refused, StatusError, TooLarge, shown_url
from effnet.system.lock import alone, in_use

DEFAULT_LIMIT_GB = 50.0
TOGETHER = 4
"""The number of shards downloaded at the same time."""

_LIMIT = "EFFNET_SHARD_CACHE_GB"
_LONGEST_NAME = 120
# Increased if the format of the cached lists of remote shards changes.
_FORMAT = 1
_MAX_LIST_BYTES = 200 * 10**6

Examine = Callable[[Handle], None]


def cache_limit_bytes() -> int:
    """Return the disk limit for downloaded shards in bytes: EFFNET_SHARD_CACHE_GB in 10^9 bytes, default 50."""
    text = os.environ.get(_LIMIT, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise DataError(f"{_LIMIT} must be a positive number, in units of 10^9 bytes; received {text!r}")
    return int(limit * 1e9)


def url_folder(url: str) -> Path:
    """Return the cache folder for the file at a URL."""
    return cache_folder() / "shards" / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def shard_path(shard: Shard) -> Path:
    """Return the cache path of a remote shard; its name has only characters that every file system allows."""
    name = re.sub(r"[^\w.+ -]", "_", os.path.basename(unquote(urlsplit(shard.location).path)))
    return url_folder(shard.location) / (name[-_LONGEST_NAME:] or "shard.tar")


def open_remote(shard: Shard, *, limit_bytes: int, examine: Examine | None = None) -> Handle:
    """Open the cached file of a remote shard; if it is absent, one process at a time downloads it.

    An interrupted download is resumed. The least recently used shards are removed, so that all shards take at most
    `limit_bytes`. `examine` raises DataError for an unusable file: it is called before a download becomes the cached
    file, and a cached file that it rejects is downloaded again. Raises DataError if no usable file can be obtained.
    """
    place = shard_path(shard)
    try:
        if handle := _open_used(place, shard, examine):
            return handle
        if network_forbidden():
            raise DataError(f"{shard.name} is not downloaded yet, and HF_HUB_OFFLINE forbids the network; unset it")
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place.with_suffix(".lock")):
            handle = _open_used(place, shard, examine)  # another process may have been faster
            if handle is None:
                handle = _fetch(shard, place, limit_bytes=limit_bytes, examine=examine)
        _ROOM.make(limit_bytes, keep=place)
    except OSError as error:
        advice = f"set EFFNET_CACHE to another folder, or lower {_LIMIT}"
        raise DataError(f"{shard.name} cannot be kept in {place.parent} ({error.strerror}); {advice}") from error
    return handle


def _open_used(place: Path, shard: Shard, examine: Examine | None) -> Handle | None:
    """Open a cached file and mark it as used now; remove it and return None if it cannot be used."""
    try:
        handle = open_handle(place)
        os.utime(place)
    except FileNotFoundError:
        return None
    try:
        if shard.size_bytes not in (0, os.fstat(handle.descriptor).st_size):
            raise DataError("it is truncated")
        if examine:
            examine(handle)
    except DataError as error:
        if network_forbidden():
            raise DataError(f"{error}; it is in {place}, and HF_HUB_OFFLINE forbids the network") from error
        place.unlink(missing_ok=True)
        return None
    return handle


def _fetch(shard: Shard, place: Path, *, limit_bytes: int, examine: Examine | None) -> Handle:
    """Download a shard to its place if it is usable; otherwise keep nothing of it."""
    part, url = place.with_name(place.name + ".part"), shown_url(shard.location)
    try:
        _download(shard, part, place, limit_bytes=limit_bytes)
        try:
            if wrong := _difference(part, shard):
                raise DataError(f"{url} must be the shard that was listed: {wrong}; contact the server's owner")
            # Opened first: once it is in its place, another process may remove it to free space.
            handle = open_handle(part)
            if examine:
                examine(handle)
        except DataError as error:
            discard(part)
            known = str(error) if str(error).startswith(url) else f"{url}: {error}"
            raise DataError(f"{known} (it was not kept in {place.parent})") from error
        os.replace(part, place)
        return handle
    finally:
        _ROOM.release(place)


def _download(shard: Shard, part: Path, place: Path, *, limit_bytes: int) -> None:
    url = shown_url(shard.location)

    def admit(size: int) -> int:
        # Simultaneous downloads of unknown size must stay within the limit together.
        size = size or limit_bytes // TOGETHER
        _ROOM.reserve(place, size, limit_bytes)
        return size

    try:
        complete(
            shard.location, part, limit_bytes=limit_bytes, size_bytes=shard.size_bytes, hashed=bool(shard.sha256),
            admit=admit,
        )  # fmt: skip
    except StatusError as error:
        raise DataError(f"{url} must be a shard, but the server returned {error}; check the URL") from error
    except Refused as error:
        advice = f"raise {_LIMIT} if the file is right" if isinstance(error, TooLarge) else "check the URL"
        raise DataError(
            f"{url} cannot be used as a shard: {error}; nothing was kept in {place.parent}; {advice}"
        ) from error
    except Dropped as error:
        size = size_on_disk(part)
        kept = f"; {size:,} bytes are kept in {part}, and the same command resumes from there" if size else ""
        raise DataError(f"{url} cannot be downloaded ({error}); check the URL and the network{kept}") from error


def _difference(path: Path, shard: Shard) -> str:
    """Return the difference of a file from the expected shard, or an empty string."""
    size = path.stat().st_size
    if shard.size_bytes and size != shard.size_bytes:
        return f"expected {shard.size_bytes:,} bytes, received {size:,}"
    if shard.sha256 and (digest := file_digest(path, "sha256")) != shard.sha256:
        return f"expected sha256:{shard.sha256}, received sha256:{digest}"
    return ""


class _Room:
    """The cache space that is reserved for this process's downloads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._promised: dict[Path, int] = {}

    def reserve(self, place: Path, size: int, limit_bytes: int) -> None:
        """Wait until other downloads leave room for `size` bytes, then reserve and free it."""
        with self._changed:
            self._promised.pop(place, None)
            self._changed.wait_for(lambda: sum(self._promised.values()) + size <= limit_bytes)
            self._promised[place] = size
        self.make(limit_bytes, keep=place)

    def release(self, place: Path) -> None:
        """Release the space reserved for a download."""
        with self._changed:
            self._promised.pop(place, None)
            self._changed.notify_all()

    def make(self, limit_bytes: int, *, keep: Path) -> None:
        """Remove the least recently used files until all, with reserved space, take at most `limit_bytes`.

        Never removes `keep`, nor a file that is being downloaded.
        """
        with self._changed:
            promised = dict(self._promised)
        used, found = sum(promised.values()), []
        for path in [*(cache_folder() / "shards").glob("*/*.tar"), *(cache_folder() / "shards").glob("*/*.tar.part")]:
            place = path.with_name(path.name.removesuffix(".part"))
            if path != place and place in promised:
                continue
            with contextlib.suppress(FileNotFoundError):  # another process may remove files as well
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path, place))
                used += status.st_size
        for _, size, path, place in sorted(found):
            if used <= limit_bytes:
                return
            if place == keep or (path != place and in_use(place.with_suffix(".lock"))):
                continue
            discard(path)
            used -= size


_ROOM = _Room()
if hasattr(os, "register_at_fork"):  # another thread may have held its lock
    os.register_at_fork(after_in_child=_ROOM.__init__)  # type: ignore[misc]


def read_list(path: Path, shard: Shard) -> tuple[Shard, tuple[Member, ...]] | None:
    """Return a remote shard and its members from the cached list, or None if there is no valid one."""
    try:
        data = read_json(path, limit_bytes=_MAX_LIST_BYTES)
        size, sha256 = data["size_bytes"], data["sha256"]
        if data["format"] != _FORMAT or shard.sha256 not in ("", sha256) or shard.size_bytes not in (0, size):
            return None
        members = tuple(Member(*row) for row in data["members"])
        if type(size) is not int or not re.fullmatch("[0-9a-f]{64}", sha256) or not members:
            return None
        return (replace(shard, size_bytes=size, sha256=sha256), members) if _fit(members, size) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_list(path: Path, shard: Shard, members: tuple[Member, ...]) -> None:
    """Write the list of a remote shard's members to the cache."""
    text = json.dumps({"format": _FORMAT, "size_bytes": shard.size_bytes, "sha256": shard.sha256, "members": members})
    part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"the list of {shard.name} cannot be kept in {path.parent} ({error.strerror}); set EFFNET_CACHE to another "
            "folder"
        ) from error


def _fit(members: tuple[Member, ...], size_bytes: int) -> bool:
    """Return whether the rows of a cached list are possible members of a file of that size."""
    return all(
        type(m.name) is str
        and type(m.offset) is int
        and type(m.size) is int
        and 0 <= m.offset <= m.offset + m.size <= size_bytes
        and m.size >= 0
        and type(m.label) in (int, str, dict)
        for m in members
    )
