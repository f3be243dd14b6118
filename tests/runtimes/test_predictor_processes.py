"""A Predictor can be pickled to another process, and works in a forked one."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading

import numpy as np
import pytest
from bundles import make_bundle

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_state
from effnet.errors import BundleError, InputError
from effnet.runtimes.write import write_export

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 20, 1), dtype=np.uint8)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="the system forks nothing")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("made") / "bundle")
    for name in ("litert", "openvino"):
        write_export(name, folder, read_config(folder), load_state(folder))
    return folder


@pytest.mark.parametrize("name, threads", [(None, 1), ("litert", 2)])
def test_a_pickle_holds_the_place_and_the_options(bundle, name, threads, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    model = effnet.load("bundle", threads=threads, format=name)
    expected = model.predict(IMAGE)
    data = pickle.dumps(model)
    assert len(data) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(data)
    assert (again.threads, again.format) == (threads, model.format)
    assert again.predict(IMAGE) == expected


def test_a_pickle_of_a_bundle_that_has_gone_says_so(tmp_path):
    data = pickle.dumps(effnet.load(make_bundle(tmp_path / "bundle")))
    (tmp_path / "bundle" / "config.json").unlink()
    with pytest.raises(BundleError, match="has none that can be read"):
        pickle.loads(data)


def test_a_spawned_process_predicts_with_it(bundle):
    model = effnet.load(bundle)
    expected = model.predict(IMAGE)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(model.predict, (IMAGE,)).get(timeout=300) == expected


def forked(action):
    """Return a forked process's output: the result of `action`, or the name of its error; a hang is a failure."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            said = action()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, pickle.dumps(said))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    assert data, "the forked process waits for ever"
    return pickle.loads(data)


@needs_fork
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_process_that_is_forked_while_another_thread_predicts_predicts(bundle, name):
    model = effnet.load(bundle, format=name, threads=2)
    expected = model.predict(IMAGE)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            model.predict(IMAGE)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(4):
            assert forked(lambda: model.predict(IMAGE)) == expected
    finally:
        stop.set()
        thread.join()


@needs_fork
def test_a_lock_that_another_thread_held_at_the_fork_is_free_again(bundle):
    model = effnet.load(bundle, format="litert")
    expected = model.predict(IMAGE)
    with model._turn, model._opening, model.engine._lock:
        assert forked(lambda: model.predict(IMAGE)) == expected


@needs_fork
def test_openvino_says_that_it_cannot_be_forked(bundle):
    model = effnet.load(bundle, format="openvino")
    model.predict(IMAGE)
    said = forked(lambda: model.predict(IMAGE))
    assert said.startswith(f"{InputError.__name__}: OpenVINO must not be used in a process forked")
