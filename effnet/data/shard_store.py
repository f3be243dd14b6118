"""Shards as they are read: any picture at any time, from files here or from the network through a bounded cache."""

import errno
import hashlib
import json
import os
import threading
import urllib.error
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from effnet.data.fetching import Dropped, alone, cache_folder, complete, file_digest, network_forbidden
from effnet.data.places import is_url
from effnet.data.tar_index import Member, list_members
from effnet.errors import DataError
from effnet.system.text import printable

DEFAULT_LIMIT_GB = 50.0
_LIMIT = "EFFNET_SHARD_CACHE_GB"
_MOST_OPEN = 64
# Raised where the lists that are kept of remote shards come to hold something else.
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A tar file of pictures; `location` is a path or URL, `name` how messages call it.

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


def cache_limit_bytes() -> int:
    """Returns how much downloaded shards may take on the disk: EFFNET_SHARD_CACHE_GB in 10^9 bytes, else 50."""
    text = os.environ.get(_LIMIT, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise DataError(f"{_LIMIT} must be a positive number of 10^9 bytes, received {text!r}")
    return int(limit * 1e9)


class _Handle:
    """An open file, which closes itself once no thread reads from it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be gone by now
        close(self.descriptor)


class ShardStore:
    """The open files of one data set's shards; may be read from any thread, and after a fork or a pickle."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        remote = [shard.size_bytes for shard in self.shards if shard.remote]
        self.limit_bytes = cache_limit_bytes() if remote else 0
        # One more is being read to its end and one arrives while as many are mixed.
        self.mixed = max(1, self.limit_bytes // max(remote) - 2) if sum(remote) > self.limit_bytes else 0
        self._most_open = min(_MOST_OPEN, self.mixed + 1) if self.mixed else _MOST_OPEN
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Handle] = OrderedDict()

    def __reduce__(self) -> tuple[type["ShardStore"], tuple[tuple[Shard, ...]]]:
        return ShardStore, (self.shards,)

    def read(self, number: int, *, offset: int, size: int) -> bytes:
        """Returns bytes of a shard; raises DataError where it has vanished or is not the one that was listed."""
        handle = self._handle(number)
        try:
            data = os.pread(handle.descriptor, size, offset)
        except OSError as error:
            raise _unreadable(self.shards[number], error) from error
        if len(data) < size:
            raise _changed(self.shards[number], offset + len(data))
        return data

    def _handle(self, number: int) -> _Handle:
        if self._process != os.getpid():  # a fork: another thread may have held the lock
            self._start()
        with self._lock:
            if handle := self._open.get(number):
                self._open.move_to_end(number)
                return handle
        shard = self.shards[number]
        handle = open_shard(shard, limit_bytes=self.limit_bytes)
        size = os.fstat(handle.descriptor).st_size
        if size != shard.size_bytes:
            raise _changed(shard, size)
        with self._lock:
            self._open[number] = handle
            while len(self._open) > self._most_open:
                self._open.popitem(last=False)
        return handle


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMember:
    """A picture of a shard."""

    store: ShardStore
    block: int
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The shard and the member in it, as in train-000000.tar/00000017.jpg."""
        return f"{self.store.shards[self.block].name}/{self.member}"

    def read(self) -> bytes:
        """Returns the encoded picture."""
        return self.store.read(self.block, offset=self.offset, size=self.size)


def open_shard(shard: Shard, *, limit_bytes: int) -> _Handle:
    """Opens a shard, downloaded where it has to be; raises DataError where it cannot be had."""
    if shard.remote:
        return _open_remote(shard, limit_bytes=limit_bytes)
    try:
        return _open(Path(shard.location))
    except OSError as error:
        raise _unreadable(shard, error) from error


def list_shard(shard: Shard, *, limit_bytes: int) -> tuple[Shard, tuple[Member, ...]]:
    """Returns the shard, its size and hash known now, and its pictures; those of a remote one are listed once."""
    kept = _place(shard).with_suffix(".json") if shard.remote else None
    if kept and (found := _read_list(kept, shard)):
        return found
    handle = open_shard(shard, limit_bytes=limit_bytes)
    with open(handle.descriptor, "rb", closefd=False) as file:
        size = os.fstat(handle.descriptor).st_size
        if shard.size_bytes and size != shard.size_bytes:
            raise _changed(shard, size)
        members = list_members(file, shard.name)
        if kept is None:
            sha256 = shard.sha256
        else:
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    found = replace(shard, size_bytes=size, sha256=sha256)
    if kept:
        text = json.dumps({"format": _FORMAT, "size_bytes": size, "sha256": sha256, "members": members})
        part = kept.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, kept)
    return found, members


def _read_list(path: Path, shard: Shard) -> tuple[Shard, tuple[Member, ...]] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT or shard.sha256 not in ("", data["sha256"]):
            return None
        known = replace(shard, size_bytes=data["size_bytes"], sha256=data["sha256"])
        return known, tuple(Member(*row) for row in data["members"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_remote(shard: Shard, *, limit_bytes: int) -> _Handle:
    """Opens the file of a remote shard in the cache, downloaded by one process at a time where it is not there.

    A download that broke off is resumed. What is there longest unused makes room, so that all shards take at most
    `limit_bytes`, or this one alone. Raises DataError where it cannot be had or has another size or hash.
    """
    place = _place(shard)
    try:
        if handle := _open_used(place):
            return handle
        if network_forbidden():
            raise DataError(f"{shard.name} is not downloaded yet, and HF_HUB_OFFLINE forbids the network; unset it")
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place.with_suffix(".lock")):
            handle = _open_used(place)  # another process may have been faster
            if handle is None:
                _make_room(limit_bytes - shard.size_bytes, keep=place)
                part = _download(shard, place)
                # Opened first: once it is in its place, another process may remove it to make room.
                handle = _open(part)
                os.replace(part, place)
        _make_room(limit_bytes, keep=place)
    except OSError as error:
        advice = f"set EFFNET_CACHE to another folder, or {_LIMIT} to less"
        raise DataError(f"{shard.name} cannot be kept in {place.parent} ({error.strerror}); {advice}") from error
    return handle


def _open(path: Path) -> _Handle:
    return _Handle(os.open(path, os.O_RDONLY))


def _open_used(path: Path) -> _Handle | None:
    """Opens a file of the cache and marks it as used now, or returns None where it is not there."""
    try:
        handle = _open(path)
        os.utime(path)
    except FileNotFoundError:
        return None
    return handle


def _place(shard: Shard) -> Path:
    name = os.path.basename(unquote(urlsplit(shard.location).path)) or "shard.tar"
    return url_folder(shard.location) / name


def url_folder(url: str) -> Path:
    """Returns the folder of the cache for what lies at a URL."""
    return cache_folder() / "shards" / hashlib.sha256(url.encode()).hexdigest()[:20]


def _download(shard: Shard, place: Path) -> Path:
    """Returns the whole file beside `place`."""
    part = place.with_name(place.name + ".part")
    try:
        complete(shard.location, part)
    except urllib.error.HTTPError as error:
        raise DataError(
            f"{shard.location} must be a shard, but the server answers {error.code} {error.reason}; check the URL"
        ) from error
    except Dropped as error:
        raise DataError(
            f"{shard.location} cannot be downloaded ({error}); the same command goes on where it broke off"
        ) from error
    wrong = _difference(part, shard)
    if wrong:
        part.unlink()
        raise DataError(f"{shard.location} must be the shard that was listed: {wrong}; ask whoever serves it")
    return part


def _difference(path: Path, shard: Shard) -> str:
    """Returns what tells a file from the shard that it should be, or an empty text."""
    size = path.stat().st_size
    if shard.size_bytes and size != shard.size_bytes:
        return f"expected {shard.size_bytes:,} bytes, received {size:,}"
    if shard.sha256 and (digest := file_digest(path, "sha256")) != shard.sha256:
        return f"expected sha256:{shard.sha256}, received sha256:{digest}"
    return ""


def _make_room(limit_bytes: int, *, keep: Path) -> None:
    """Removes the shards used longest ago until all take at most `limit_bytes`, but never `keep`."""
    found = []
    for path in (cache_folder() / "shards").glob("*/*.tar"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process makes room as well
            continue
        found.append((status.st_mtime_ns, status.st_size, path))
    used = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if used <= limit_bytes:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            used -= size


def _changed(shard: Shard, size: int) -> DataError:
    return DataError(
        f"{shard.name} must stay as it was listed, {shard.size_bytes:,} bytes, but now has {size:,}; begin anew with "
        "shards that do not change"
    )


def _unreadable(shard: Shard, error: OSError) -> DataError:
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    advice = "put it back" if gone else "check its permissions and its disk"
    return DataError(
        f"the shard {printable(shard.location)} must be readable, but it is not ({error.strerror}); {advice}"
    )
