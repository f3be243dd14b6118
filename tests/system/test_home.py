"""A user without a name and a home folder gets a private folder."""

import os
import pwd
import stat
import tempfile
from pathlib import Path

import pytest

from effnet.system.cache import cache_folder
from effnet.system.home import give_home, private_folder


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Remove the user's home and name; return the folder for temporary files."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "EFFNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private_folder.cache_clear()
    yield tmp_path
    private_folder.cache_clear()


def test_the_cache_lies_in_a_private_folder(homeless):
    own = homeless / f"effnet-{os.getuid()}"
    assert cache_folder() == own / "effnet"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


@pytest.mark.parametrize("empty", [False, True])
def test_the_command_has_a_home_and_says_so_once(homeless, monkeypatch, empty):
    if empty:
        monkeypatch.setenv("HOME", "")
    own = homeless / f"effnet-{os.getuid()}"
    assert (
        give_home() == f"this user has no home folder; caches go to {own}. Set HOME or EFFNET_CACHE to another folder"
    )
    assert Path.home() == own
    assert give_home() == ""
    monkeypatch.delenv("HOME")
    private_folder.cache_clear()
    assert give_home() == ""
    assert Path.home() == own


@pytest.mark.parametrize("trap", ["open folder", "link", "file"])
def test_a_folder_that_others_have_prepared_is_not_taken(homeless, trap):
    own = homeless / f"effnet-{os.getuid()}"
    if trap == "open folder":
        own.mkdir()
        own.chmod(0o777)
    elif trap == "link":
        (homeless / "theirs").mkdir()
        own.symlink_to(homeless / "theirs")
    else:
        own.touch()
    found = cache_folder().parent
    assert found != own
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_who_has_a_home_keeps_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert give_home() == ""
    assert Path.home() == tmp_path
