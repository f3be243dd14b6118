"""A file that would crash the process is tried in another process first, once."""

import os
import stat
import sys

import numpy as np
import pytest
from bundles import make_bundle

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_state
from effnet.errors import BundleError
from effnet.runtimes import probe
from effnet.runtimes.write import write_export

pytest.importorskip("ai_edge_litert.interpreter")

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a process that has not tried any file."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "_known", set())
    return tmp_path / "cache"


@pytest.fixture
def started(monkeypatch):
    """The commands of started processes."""
    commands, run = [], probe.subprocess.run

    def listen(command, **options):
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(probe.subprocess, "run", listen)
    return commands


def export(bundle, name):
    return write_export(name, bundle, read_config(bundle), load_state(bundle), images=IMAGES)


def predict(bundle, name):
    return effnet.load(bundle, format=name).predict(IMAGES[0])


def damage(path, place, value):
    content = bytearray(path.read_bytes())
    assert content[place] != value
    content[place] = value
    path.write_bytes(content)


def test_a_file_that_ends_its_process_is_an_error_here(bundle):
    """test_executorch has a .pte that does; this one moves a table of the flatbuffer."""
    path = export(bundle, "litert-int8")
    damage(path, 20, 8)
    with pytest.raises(BundleError, match=rf"{path} must be a whole model; it crashed the process .* \(SIG\w+\)"):
        predict(bundle, "litert-int8")


def test_what_effnet_has_written_here_is_not_tried(bundle, started):
    export(bundle, "litert")
    assert predict(bundle, "litert")
    assert started == []


def test_a_file_from_elsewhere_is_tried_once_on_a_machine(bundle, started, cache, monkeypatch):
    path = export(bundle, "litert")
    damage(path, -1, 3)
    first = predict(bundle, "litert")
    assert [command[2:5] for command in started] == [["-m", "effnet.runtimes.probe", str(path)]]
    monkeypatch.setattr(probe, "_known", set())  # as in another process
    assert predict(bundle, "litert") == first
    assert len(started) == 1
    damage(path, -1, 4)
    predict(bundle, "litert")
    assert len(started) == 2
    assert all(stat.S_ISREG(os.lstat(kept).st_mode) for kept in (cache / "opened").iterdir())


def test_without_a_cache_it_is_tried_once_in_a_process(bundle, started, cache):
    cache.write_text("a file where the folder would be")
    damage(export(bundle, "litert"), -1, 3)
    for _ in range(2):
        predict(bundle, "litert")
    assert len(started) == 1


def test_what_the_other_process_says_is_said_here(bundle, started):
    path = export(bundle, "litert")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BundleError, match=rf"^LiteRT cannot read {path}: "):
        predict(bundle, "litert")
    assert len(started) == 1


def test_the_oldest_are_forgotten(cache, monkeypatch):
    monkeypatch.setattr(probe, "_MOST_KEPT", 3)
    for number in range(5):
        probe._remember(f"key-{number}")
        os.utime(cache / "opened" / f"key-{number}", (number, number))
    assert sorted(path.name for path in (cache / "opened").iterdir()) == ["key-2", "key-3", "key-4"]


def test_a_frozen_application_starts_no_python(bundle, started, monkeypatch):
    damage(export(bundle, "litert"), -1, 3)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert predict(bundle, "litert")
    assert started == []
