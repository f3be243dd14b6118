"""The compiled kernels: loaded only if this user compiled them, and optional if they cannot be compiled."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from effnet.nn.kernels import compile as compiling
from effnet.nn.kernels import library
from effnet.system.cache import cache_folder

pytestmark = pytest.mark.skipif(library.load_kernels() is None, reason="no C compiler with OpenMP")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The library of this session, from which others are copied: compiling takes seconds."""
    path = tmp_path_factory.mktemp("compiled") / "kernels.so"
    try:
        shutil.copy(next((cache_folder() / "kernels").glob("*.so")), path)
    except StopIteration:
        compiling.load_library(path.parent, ())
        shutil.copy(next((path.parent / "kernels").glob("*.so")), path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    library.find_kernels.cache_clear()
    yield tmp_path / "cache"
    library.find_kernels.cache_clear()


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Return a factory of fake compilers, which are shell scripts; "$out" is the path of the library."""

    def make(script):
        path = tmp_path / "fake-cc"
        path.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && { echo fake 1.0; exit; }\n'
            f'while [ "$1" != -o ]; do shift; done\nout=$2\necho >> {tmp_path}/calls\n{script}\n'
        )
        path.chmod(0o700)
        monkeypatch.setenv("CC", str(path))
        return lambda: len((tmp_path / "calls").read_text()) if (tmp_path / "calls").exists() else 0

    return make


@pytest.fixture
def copying(compiler, compiled):
    """A fake compiler that copies the library and counts its calls."""
    return compiler(f'cp {compiled} "$out"')


def load_anew():
    library.find_kernels.cache_clear()
    return library.find_kernels()


def kept(cache):
    return list((cache / "kernels").iterdir())


def test_kernels_are_compiled_once_and_kept_for_this_user_alone(cache, copying):
    assert load_anew().library is not None
    assert load_anew().library is not None
    assert load_anew().note == ""
    assert copying() == 1
    (path,) = kept(cache)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def rewrite(path, content):
    """Replace a file that this process has loaded."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def cut(path):
    rewrite(path, path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    rewrite(path, b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, content)


def link(path):
    shutil.move(path, path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [cut, empty, flip, link, pipe, lambda path: path.chmod(0o666)])
def test_a_kept_library_that_is_not_what_was_compiled_is_compiled_again(damage, cache, copying, compiled):
    load_anew()
    (path,) = kept(cache)
    damage(path)
    found = load_anew()
    assert found.library is not None
    assert found.note == ""
    assert copying() == 2
    assert path.read_bytes() == compiled.read_bytes()
    assert not path.is_symlink()


def test_a_library_of_another_processor_is_not_loaded(cache, copying, monkeypatch):
    load_anew()
    monkeypatch.setattr(compiling, "_processor", lambda: b"flags: another one")
    load_anew()
    assert copying() == 2
    assert len(kept(cache)) == 2


@needs_root
@pytest.mark.parametrize("what", ["library", "folder", "above"])
def test_what_another_user_can_write_is_not_loaded(what, cache, copying):
    load_anew()
    (path,) = kept(cache)
    os.chown({"library": path, "folder": path.parent, "above": cache}[what], 12_345, -1)
    found = load_anew()
    assert found.library is not None
    assert copying() == 2
    if what != "library":
        assert found.note.startswith(f"{cache}/kernels cannot keep the compiled kernels (other users can write there")
        assert "\n" not in found.note


def test_a_folder_that_all_can_write_to_is_closed_and_one_below_it_not_used(cache, copying):
    load_anew()
    (cache / "kernels").chmod(0o777)
    assert load_anew().note == ""
    assert stat.S_IMODE((cache / "kernels").stat().st_mode) == 0o700
    cache.chmod(0o777)
    assert "other users can write there" in load_anew().note
    cache.chmod(0o1777)  # as /tmp
    assert load_anew().note == ""


@pytest.mark.parametrize(
    "script, reason",
    [
        ("exit 1", "the C compiler fails with code 1"),
        ("exit 0", "the C compiler produces no library"),
        ('echo garbage > "$out"', "the compiled library fails with code 1"),
        ('head -c 60000 {compiled} > "$out"', "the compiled library fails with code"),
        ("sleep 1000 & wait", "the C compiler does not end within 0.3 seconds"),
    ],
)
def test_a_compiler_that_fails_is_as_good_as_none(script, reason, cache, compiler, compiled, monkeypatch):
    if script.startswith("sleep"):
        monkeypatch.setattr(compiling, "_COMPILE_SECONDS", 0.3)
    compiler(script.format(compiled=compiled))
    found = load_anew()
    assert found.library is None
    assert found.note.startswith(f"CPU training is slower, without effnet's fused kernels: {reason}")
    assert kept(cache) == []


def test_without_a_compiler_there_is_a_note(cache, monkeypatch):
    monkeypatch.setattr("effnet.nn.kernels.compile.shutil.which", lambda name: None)
    assert load_anew().note.endswith("fused kernels: there is no C compiler")


def test_a_full_disk_leaves_the_kernels_to_each_process(cache, copying, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiling, "_keep", full)
    found = load_anew()
    assert found.library is not None
    assert "cannot keep the compiled kernels (No space left on device), so each process compiles them" in found.note
    assert kept(cache) == []


def test_what_a_killed_compilation_left_is_removed(cache, copying):
    old, new = cache / "kernels" / ".build-old", cache / "kernels" / ".build-new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    load_anew()
    assert not old.exists()
    assert new.exists()


def test_processes_that_compile_at_once_all_have_kernels(cache, copying):
    code = "from effnet.nn.kernels.library import find_kernels as f; print(f().library is not None, f().note)"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=300)[0] for process in processes] == ["True \n"] * 3
    assert len([path for path in kept(cache) if path.suffix == ".so"]) == 1
    assert Path(kept(cache)[0]).is_file()


def test_the_compilers_own_files_go_with_the_folder_of_the_library(cache, compiler, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    compiler('touch "$TMPDIR/cc0.s"\nexit 1')
    with pytest.raises(compiling.NoLibrary):
        compiling.load_library(cache, ())
    assert [path.name for path in tmp_path.rglob("cc0.s")] == []
