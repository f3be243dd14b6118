"""The store of arrays: it returns what was saved, it respects its limit, and damage to it causes no errors."""

import itertools
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import HELPERS

from effnet.system.array_cache import _TABLE, _pack, load_arrays, open_store, save_arrays
from effnet.system.cache import cache_folder

BIG = 10**9


def array_of(number, length=1000):
    return np.random.default_rng(number).standard_normal(length, dtype=np.float32)


def key_of(number):
    return number.to_bytes(16, "little")


def save(path, numbers, *, limit_bytes=BIG, length=1000):
    store = open_store(path)
    save_arrays(store, {key_of(n): array_of(n, length) for n in numbers}, limit_bytes=limit_bytes)
    if store is not None:
        store.close()


def load(path, numbers, length=1000):
    """Return the arrays that the store has, which must be right."""
    store = open_store(path)
    found = load_arrays(store, [key_of(n) for n in numbers], length=length)
    if store is not None:
        store.close()
    for key, array in found.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, array_of(int.from_bytes(key, "little"), length))
    return {int.from_bytes(key, "little") for key in found}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "arrays.sqlite"


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by one second on every read."""
    ticks = itertools.count(1000)
    monkeypatch.setattr("effnet.system.array_cache.time.time", lambda: float(next(ticks)))


def test_arrays_come_back_and_only_those_that_were_saved(path):
    assert load(path, range(3)) == set()
    save(path, range(1200))  # more than fit into one statement
    assert load(path, range(1300)) == set(range(1200))
    assert load(path, []) == set()


def test_what_is_no_32_bit_vector_is_made_one(path):
    square = np.arange(6.0).reshape(2, 3).T
    with closing(open_store(path)) as store:
        save_arrays(store, {b"square": square, b"empty": np.zeros(0)}, limit_bytes=BIG)
        found = load_arrays(store, [b"square"], length=6) | load_arrays(store, [b"empty"], length=0)
    assert np.array_equal(found[b"square"], [0, 3, 1, 4, 2, 5])
    assert found[b"empty"].size == 0


def test_a_key_that_is_saved_again_has_its_new_array(path):
    save(path, [1])
    with closing(open_store(path)) as store:
        save_arrays(store, {key_of(1): array_of(2)}, limit_bytes=BIG)
        assert np.array_equal(load_arrays(store, [key_of(1)], length=1000)[key_of(1)], array_of(2))


def test_what_was_used_longest_ago_goes_first(path, clock):
    for number in range(10):
        save(path, [number])
    assert load(path, [0, 3]) == {0, 3}
    save(path, [10], limit_bytes=45_000)
    left = load(path, range(11))
    assert {0, 3, 10} <= left
    assert left - {0, 3} == set(range(13 - len(left), 11))  # the others were dropped by age
    assert 4 <= len(left) <= 9


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("SSL"), st.sets(st.integers(0, 30), min_size=3, max_size=12)), min_size=1, max_size=9
)


@settings(max_examples=25, deadline=None)
@given(operations=OPERATIONS, limit=st.integers(40_000, 90_000), length=st.integers(300, 1500))
def test_the_file_keeps_its_limit_and_the_most_recently_used(tmp_path_factory, operations, limit, length):
    path = tmp_path_factory.mktemp("store") / "arrays.sqlite"
    used = {}
    with pytest.MonkeyPatch.context() as patch:
        for tick, (operation, numbers) in enumerate(operations):
            patch.setattr("effnet.system.array_cache.time.time", lambda tick=tick: float(tick))
            if operation == "S":
                save(path, numbers, limit_bytes=limit, length=length)
                used |= dict.fromkeys(numbers, tick)
                assert path.stat().st_size <= limit
            else:
                used |= dict.fromkeys(load(path, numbers, length), tick)
        left = load(path, range(31), length)
    gone = set(used) - left
    assert left <= set(used)
    if gone and left:
        assert max(used[n] for n in gone) <= min(used[n] for n in left)
    if 30 * (4 * length + 200) + 30_000 < limit:
        assert not gone


def test_more_than_the_limit_at_once_leaves_some_of_it(path):
    save(path, range(100), limit_bytes=100_000)
    assert 10 < len(load(path, range(100))) < 25
    assert path.stat().st_size <= 100_000


def test_a_lower_limit_makes_the_file_smaller(path):
    save(path, range(100))
    assert path.stat().st_size > 400_000
    save(path, [100], limit_bytes=50_000)
    assert path.stat().st_size <= 50_000
    assert load(path, [100]) == {100}


def test_a_limit_of_nothing_leaves_nothing(path):
    save(path, range(5), limit_bytes=0)
    assert load(path, range(5)) == set()


@pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_no_database_gives_way_to_a_new_one(tmp_path, content):
    path = tmp_path / "arrays.sqlite"
    path.write_bytes(content)
    save(path, [1])
    assert load(path, [1]) == {1}
    assert [p.name for p in tmp_path.iterdir()] == ["arrays.sqlite"]


def test_a_file_cut_in_half_gives_way_to_a_new_one(path):
    save(path, range(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096])
    load(path, range(50))
    save(path, [1])
    save(path, [1])
    assert load(path, [1]) == {1}


def test_damage_anywhere_never_gives_a_wrong_array(tmp_path):
    whole, path = tmp_path / "whole.sqlite", tmp_path / "damaged.sqlite"
    save(whole, range(12), length=1500)
    content, rng = whole.read_bytes(), np.random.default_rng(0)
    lost = 0
    for _ in range(80):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] ^= 1 << rng.integers(8)
        if rng.random() < 0.3:
            start = int(rng.integers(0, len(content), 1)[0])
            damaged[start : start + 4096] = bytes(len(damaged[start : start + 4096]))
        path.write_bytes(damaged)
        store = open_store(path)
        if store is None:
            continue
        with closing(store):
            found = load_arrays(store, [key_of(n) for n in range(12)], length=1500)
            save_arrays(store, {key_of(12): array_of(12, 1500)}, limit_bytes=40_000)
        for key, array in found.items():
            assert np.array_equal(array, array_of(int.from_bytes(key, "little"), 1500))
        lost += len(found) < 12
    assert lost > 40  # most damage was detected


def test_another_programs_database_is_left_alone(path):
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE arrays (name TEXT)")
        other.execute("INSERT INTO arrays VALUES ('kept')")
    save(path, [1])
    assert load(path, [1]) == set()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM arrays").fetchall() == [("kept",)]


_ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS key, i AS used, i AS data FROM n"
)


@pytest.mark.parametrize(
    "statements",
    [
        [f"CREATE VIEW arrays AS {_ENDLESS}"],
        ["CREATE TABLE arrays (key BLOB PRIMARY KEY, used REAL NOT NULL, data BLOB AS (zeroblob(1000000000)))"],
        [_TABLE, "CREATE TRIGGER t AFTER UPDATE ON arrays BEGIN DELETE FROM arrays; END"],
        [_TABLE, "CREATE INDEX i ON arrays (length(data))"],
    ],
)
def test_a_database_that_was_made_to_do_harm_is_left_alone(statements, path):
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as other:
        for statement in statements:
            other.execute(statement)
    content = path.read_bytes()
    assert open_store(path) is None
    assert path.read_bytes() == content


def insert(path, rows):
    with closing(sqlite3.connect(path)) as other, other:
        other.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?)", rows)


@pytest.mark.parametrize(
    "data",
    [
        _pack(np.zeros(999, np.float32)),
        _pack(np.zeros(1001, np.float32)),
        _pack(np.full(1000, np.nan, np.float32)),
        _pack(np.zeros(1000, np.float32))[:-1],
        b"",
        "x" * 4004,
        4,
    ],
)
def test_a_row_that_holds_no_such_array_is_no_row(data, path):
    save(path, [1, 2])
    insert(path, [(key_of(1), 0.0, data)])
    assert load(path, [1, 2]) == {2}
    save(path, [1])
    assert load(path, [1, 2]) == {1, 2}


def test_a_large_row_is_not_read(path):
    save(path, [1])
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE arrays SET data = zeroblob(50000000)")
    tracemalloc.start()
    assert load(path, [1]) == set()
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_a_statement_that_takes_too_long_is_ended(path, monkeypatch):
    save(path, range(500), length=10)
    monkeypatch.setattr("effnet.system.array_cache._LONGEST_SECONDS", -1.0)
    monkeypatch.setattr("effnet.system.array_cache._STEPS", 1)
    assert load(path, range(500), 10) == set()
    monkeypatch.undo()
    assert load(path, range(500), 10) == set(range(500))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("name", ["arrays.sqlite", "arrays.sqlite-journal", "arrays.sqlite-wal"])
def test_a_pipe_is_no_store(name, tmp_path):
    if not name.endswith("sqlite"):
        save(tmp_path / "arrays.sqlite", [1])
    os.mkfifo(tmp_path / name)
    assert open_store(tmp_path / "arrays.sqlite") is None


def test_where_no_file_can_be_there_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "arrays.sqlite", tmp_path / "folder", Path("/dev/null/arrays.sqlite")):
        assert open_store(path) is None
    save_arrays(None, {b"key": array_of(0)}, limit_bytes=BIG)
    assert load_arrays(None, [b"key"], length=1) == {}


def test_a_store_that_can_only_be_read_is_read(path):
    save(path, range(700))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        assert len(load_arrays(store, [key_of(n) for n in range(800)], length=1000)) == 700
        save_arrays(store, {key_of(701): array_of(701)}, limit_bytes=BIG)
    assert load(path, range(800)) == set(range(700))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_no_error(path):
    save(path, [1])
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        save(path, [2])
        assert load(path, [1, 2]) == {1}
        assert open_store(path.parent / "other.sqlite") is None
    finally:
        path.parent.chmod(stat.S_IRWXU)


def test_a_full_disk_is_no_error_and_loses_nothing(path):
    save(path, range(5))
    with closing(open_store(path)) as store:
        pages = store.execute("PRAGMA page_count").fetchone()[0]
        store.execute(f"PRAGMA max_page_count = {pages + 2}")
        save_arrays(store, {key_of(n): array_of(n) for n in range(5, 50)}, limit_bytes=BIG)
        assert not store.in_transaction
    assert load(path, range(50)) == set(range(5))


def test_a_store_that_another_holds_is_waited_for_and_then_done_without(path, monkeypatch):
    monkeypatch.setattr("effnet.system.array_cache._WAIT_SECONDS", 0.05)
    save(path, [1])
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        store = open_store(path)
        assert load_arrays(store, [key_of(1)], length=1000).keys() == {key_of(1)}
        save_arrays(store, {key_of(2): array_of(2)}, limit_bytes=BIG)
        other.rollback()
        save_arrays(store, {key_of(3): array_of(3)}, limit_bytes=BIG)
        store.close()
    assert load(path, range(5)) == {1, 3}


_WRITER = """
import sys
sys.path[:0] = {tests!r}
from pathlib import Path
from test_array_cache import load, save
path, first = Path({path!r}), {first}
print("ready", flush=True)
sys.stdin.readline()
for start in range(first, first + {count}, 10):
    save(path, range(start, start + 10))
    assert load(path, range(start, start + 10)) == set(range(start, start + 10))
    print(start, flush=True)
"""


def start_writer(path, first, count):
    code = _WRITER.format(tests=[str(HELPERS), os.path.dirname(__file__)], path=str(path), first=first, count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_write_at_once_lose_nothing(path):
    writers = [start_writer(path, first, 200) for first in (0, 200)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=300)
        assert writer.returncode == 0
    assert load(path, range(500)) == set(range(400))


def test_a_process_killed_while_writing_leaves_a_store_that_works(path):
    writer = start_writer(path, 0, 10**6)
    writer.stdin.write("go\n")
    writer.stdin.flush()
    for _ in range(10):
        line = writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert set(range(int(line))) <= load(path, range(int(line)))
    save(path, [10**7])
    assert load(path, [10**7]) == {10**7}


def test_the_folder_is_that_of_the_environment_or_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("EFFNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "effnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    for platform, name in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == tmp_path / name / "effnet"
