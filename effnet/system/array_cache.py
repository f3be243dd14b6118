"""A cache on disk for arrays that effnet can recompute, with a size limit."""

import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

_TABLE = "CREATE TABLE arrays (key BLOB PRIMARY KEY, used REAL NOT NULL, data BLOB NOT NULL)"
# In this order, so that deleting rows shrinks the file.
_SETUP = ("PRAGMA auto_vacuum = FULL", _TABLE.replace("TABLE", "TABLE IF NOT EXISTS", 1))
# Before the file is trusted: its schema may call no functions, and pages are checked as they are read.
_GUARDS = ("PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0")
# The whole schema of a store: the table, and the index of its key.
_SCHEMA = {("table", "arrays", _TABLE), ("index", "sqlite_autoindex_arrays_1", None)}
# SQLite limits the number of values per statement.
_CHUNK = 500
# Another process may be writing.
_WAIT_SECONDS = 10.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Above the limit a tenth of it is freed at once, so that a full store need not make room on every write.
_FREED = 0.1
_CHECKSUM_BYTES = 4
# A statement checks the clock after every so many SQLite operations, and is aborted after the longest time.
_STEPS = 100_000
_LONGEST_SECONDS = 60.0


def open_store(path: Path) -> sqlite3.Connection | None:
    """Return the store of arrays at `path`, created if it is missing, or None if it cannot be used.

    A cache only saves time: a folder that cannot be written to must not cause an error, and a damaged file is replaced
    by a new one. A database that is not a store is left unchanged.
    """
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = [path, *(path.with_name(path.name + end) for end in ("-journal", "-wal", "-shm"))]
            if any(file.exists() and not file.is_file() for file in beside):  # SQLite would block on a pipe
                return None
            store = sqlite3.connect(path, timeout=_WAIT_SECONDS)
        except (OSError, sqlite3.Error):
            return None
        try:
            if _prepare(store):
                return store
            store.close()
            return None
        except sqlite3.Error as error:
            store.close()
            if not _remove_if_damaged(path, error):
                return None
    return None


def _prepare(store: sqlite3.Connection) -> bool:
    """Create the table in a new file; return whether the file is a store."""
    for statement in _GUARDS:
        store.execute(statement)
    # Only a new file is written to: an existing one may be locked by another process, or read-only.
    if not store.execute("PRAGMA schema_version").fetchone()[0]:
        for statement in _SETUP:
            store.execute(statement)
    rows = store.execute("SELECT type, name, sql FROM sqlite_master LIMIT 3").fetchall()
    return set(rows) == _SCHEMA


def load_arrays(store: sqlite3.Connection | None, keys: Iterable[bytes], *, length: int) -> dict[bytes, np.ndarray]:
    """Return the float32 arrays [length] that the store has, and mark them as used now."""
    found: dict[bytes, np.ndarray] = {}
    if store is None:
        return found
    wanted = list(keys)
    parts = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
    with _forgiving(store):
        for part in parts:
            # Arrays of another length are not read.
            rows = store.execute(
                f"SELECT key, data FROM arrays WHERE key IN ({_marks(part)}) AND LENGTH(data) = ?",
                [*part, _CHECKSUM_BYTES + 4 * length],
            )
            found |= {key: array for key, data in rows if (array := _unpack(data)) is not None}
    with _forgiving(store):
        for part in parts:
            store.execute(f"UPDATE arrays SET used = ? WHERE key IN ({_marks(part)})", [time.time(), *part])
    return found


def save_arrays(store: sqlite3.Connection | None, arrays: Mapping[bytes, np.ndarray], *, limit_bytes: int) -> None:
    """Add float32 arrays [length], and drop the least recently used ones if the file would exceed `limit_bytes`."""
    if store is None or not arrays:
        return
    now = time.time()
    with _forgiving(store):
        store.execute("BEGIN IMMEDIATE")  # no other process may write between counting and dropping
        rows = ((key, now, _pack(array)) for key, array in arrays.items())
        store.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?)", rows)
        while (excess := _size_bytes(store) - limit_bytes) > 0:
            if not _drop_oldest(store, excess + int(_FREED * limit_bytes)):
                break


@contextmanager
def _forgiving(store: sqlite3.Connection) -> Iterator[None]:
    """Run one transaction, rolled back if it fails or takes too long; a damaged file is removed."""
    end = time.monotonic() + _LONGEST_SECONDS
    store.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        with store:
            yield
    except sqlite3.Error as error:
        store.set_progress_handler(None, 0)
        ((_, _, path),) = store.execute("PRAGMA database_list").fetchall()
        _remove_if_damaged(Path(path), error)


def _remove_if_damaged(path: Path, error: sqlite3.Error) -> bool:
    """Return whether the file was damaged and is removed; other processes may still have it open."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
        return False
    with suppress(OSError):
        Path(f"{path}-journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return not path.exists()


def _marks(values: list[bytes]) -> str:
    return ",".join("?" * len(values))


def _pack(array: np.ndarray) -> bytes:
    """Return the array after its checksum: SQLite does not detect changed values."""
    data = np.ascontiguousarray(array, np.float32).tobytes()
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little") + data


def _unpack(data: object) -> np.ndarray | None:
    """Return the array, or None if it is damaged or not finite."""
    if not isinstance(data, bytes):  # SQLite may hold text in any column
        return None
    checksum = int.from_bytes(data[:_CHECKSUM_BYTES], "little")
    if zlib.crc32(memoryview(data)[_CHECKSUM_BYTES:]) != checksum:
        return None
    array = np.frombuffer(data, dtype=np.float32, offset=_CHECKSUM_BYTES)
    return array if np.isfinite(array).all() else None


def _size_bytes(store: sqlite3.Connection) -> int:
    """Return the size that the file has after this transaction."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (store.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return (pages - free) * size


def _drop_oldest(store: sqlite3.Connection, excess: int) -> bool:
    """Drop the least recently used arrays, `excess` bytes of them; return whether there were any."""
    gone: list[tuple[int]] = []
    for row, length in store.execute("SELECT rowid, LENGTH(data) FROM arrays ORDER BY used"):
        if excess <= 0:
            break
        gone.append((row,))
        excess -= length
    store.executemany("DELETE FROM arrays WHERE rowid = ?", gone)
    return bool(gone)
