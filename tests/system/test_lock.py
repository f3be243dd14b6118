"""The holder of a place excludes others, under all its names, and leaves nothing behind."""

import errno
import os
import socket
import subprocess
import sys
import threading

import pytest

from effnet.errors import InputError
from effnet.system.lock import SCRATCH, alone_in, sweep

REFUSED = (
    r"only one effnet process at a time may write to .*; process {} does\. Wait until it ends, or name another --out"
)


def refused(place, who=None):
    with pytest.raises(InputError, match=REFUSED.format(os.getpid() if who is None else who)), alone_in(place):
        pass


@pytest.mark.parametrize("kind", ["folder", "file", "nothing", "nothing in nothing"])
def test_a_place_is_held_once_and_nothing_is_left_of_the_lock(kind, tmp_path):
    place = tmp_path / ("new/below/out" if kind == "nothing in nothing" else "out")
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.touch()
    before = sorted(tmp_path.rglob("*"))
    with alone_in(place):
        refused(place)
        with alone_in(place.with_name("another")):
            pass
    assert sorted(tmp_path.rglob("*")) == before
    with alone_in(place):  # and again
        pass


def test_all_names_of_a_place_are_one(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with alone_in(tmp_path / "real"):
        for name in ("real", "./real/", "link", "folder/real", "real/../link", tmp_path / "folder" / "link"):
            refused(name)
        monkeypatch.chdir(tmp_path / "real")
        refused(".")


def test_what_was_made_inside_stays(tmp_path):
    with alone_in(tmp_path / "new" / "out"):
        (tmp_path / "new" / "out").mkdir()
    assert (tmp_path / "new" / "out").is_dir()


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    code = "import os, signal, sys; from effnet.system.lock import alone_in\nwith alone_in(sys.argv[1]):"
    killed = f"{code} os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", killed, tmp_path / "out"], timeout=300).returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".out.effnet-lock"]
    with alone_in(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_temporary_folders_of_a_process_that_was_killed_go(tmp_path):
    out = tmp_path / "out"
    (out / f"{SCRATCH}1" / "deep").mkdir(parents=True)
    (out / "run" / f"{SCRATCH}2").mkdir(parents=True)
    (out / f"{SCRATCH}link").symlink_to(tmp_path)
    with alone_in(out):
        assert sorted(path.name for path in out.iterdir()) == [f"{SCRATCH}link", "run"]
        sweep(out / "run", deep=True)
        assert list((out / "run").iterdir()) == []


def test_only_one_of_many_is_ever_inside(tmp_path):
    """The lock file is removed and created again: a process that opened the removed one must not hold the lock."""
    inside, most, entered = [], [], []

    def work():
        for _ in range(150):
            try:
                with alone_in(tmp_path / "out"):
                    inside.append(True)
                    most.append(len(inside))
                    inside.pop()
                    entered.append(True)
            except InputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(entered) >= 150 / 4


def test_without_locks_work_goes_on(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("effnet.system.lock.fcntl.flock", unknown)
    with alone_in(tmp_path / "out"), alone_in(tmp_path / "out"):
        pass
    monkeypatch.setattr("effnet.system.lock.fcntl", None)
    with alone_in(tmp_path / "out"), alone_in(tmp_path / "out"):
        pass


def test_where_nothing_may_be_made_beside_it_a_folder_itself_is_locked(tmp_path, monkeypatch):
    """A container volume: its folder is writable, the parent folder is not."""

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("effnet.system.lock._open", forbidden)
    (tmp_path / "out").mkdir()
    with alone_in(tmp_path / "out"):
        with pytest.raises(InputError, match="another process does"), alone_in(tmp_path / "out"):
            pass
        assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
    with alone_in(tmp_path / "absent"):  # the command itself will report the problem
        pass


def test_another_computer_is_named_and_a_lock_that_is_a_link_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "there")
    with alone_in(tmp_path / "out"):
        monkeypatch.setattr(socket, "gethostname", lambda: "here")
        refused(tmp_path / "out", who=f"{os.getpid()} of there")
    (tmp_path / "mine").write_text("kept")
    (tmp_path / ".out.effnet-lock").symlink_to(tmp_path / "mine")
    with alone_in(tmp_path / "out"):
        pass
    assert (tmp_path / "mine").read_text() == "kept"
