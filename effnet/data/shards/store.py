"""Read images from shards in any order, from local files or from the network through a size-limited cache."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effnet.data.shards.cache import cache_limit_bytes, open_remote, read_list, shard_path, write_list
from effnet.data.shards.file import Handle, Shard, changed, open_handle, unreadable
from effnet.data.shards.tar import Member, list_members
from effnet.errors import DataError

_MOST_OPEN = 64


class ShardStore:
    """The open files of one data set's shards; readable from any thread, and after a fork or a pickle."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        remote = [shard.size_bytes for shard in self.shards if shard.remote]
        self.limit_bytes = cache_limit_bytes() if remote else 0
        # Besides the mixed shards, one is read to its end and one is being downloaded.
        self.mixed = max(1, self.limit_bytes // max(remote) - 2) if sum(remote) > self.limit_bytes else 0
        self._most_open = min(_MOST_OPEN, self.mixed + 1) if self.mixed else _MOST_OPEN
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Handle] = OrderedDict()

    def __reduce__(self) -> tuple[type["ShardStore"], tuple[tuple[Shard, ...]]]:
        return ShardStore, (self.shards,)

    def read(self, number: int, *, offset: int, size: int) -> bytes:
        """Return bytes of a shard; raise DataError if it is missing or not the one that was listed."""
        handle = self._handle(number)
        try:
            data = os.pread(handle.descriptor, size, offset)
        except OSError as error:
            raise unreadable(self.shards[number], error) from error
        if len(data) < size:
            raise changed(self.shards[number], offset + len(data))
        return data

    def _handle(self, number: int) -> Handle:
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
            raise changed(shard, size)
        with self._lock:
            self._open[number] = handle
            while len(self._open) > self._most_open:
                self._open.popitem(last=False)
        return handle


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMember:
    """An image of a shard."""

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
        """Return the encoded image."""
        return self.store.read(self.block, offset=self.offset, size=self.size)


def open_shard(shard: Shard, *, limit_bytes: int) -> Handle:
    """Open a shard, after a download if it is remote; raise DataError if it cannot be opened."""
    if shard.remote:
        return open_remote(shard, limit_bytes=limit_bytes)
    try:
        return open_handle(Path(shard.location))
    except OSError as error:
        raise unreadable(shard, error) from error


def list_shard(shard: Shard, *, limit_bytes: int) -> tuple[Shard, tuple[Member, ...]]:
    """Return the shard with its size and hash, and its images; those of a remote shard are listed once."""
    if not shard.remote:
        return _listed(shard, open_shard(shard, limit_bytes=limit_bytes))
    kept = shard_path(shard).with_suffix(".json")
    if found := read_list(kept, shard):
        return found
    listed: list[tuple[Shard, tuple[Member, ...]]] = []
    open_remote(shard, limit_bytes=limit_bytes, examine=lambda handle: listed.append(_listed(shard, handle)))
    write_list(kept, *listed[-1])
    return listed[-1]


def _listed(shard: Shard, handle: Handle) -> tuple[Shard, tuple[Member, ...]]:
    """List an open shard; raise DataError if it is damaged, or not the one in the index."""
    try:
        with open(handle.descriptor, "rb", closefd=False) as file:
            size = os.fstat(handle.descriptor).st_size
            if shard.size_bytes not in (0, size):
                raise changed(shard, size)
            members = list_members(file, shard.name)
            sha256 = shard.sha256
            if shard.remote:
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(shard, error) from error
    if shard.sha256 not in ("", sha256):
        raise DataError(f"{shard.name} must be the shard that was listed, with sha256:{shard.sha256}; it has {sha256}")
    return replace(shard, size_bytes=size, sha256=sha256), members
