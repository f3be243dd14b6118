"""torch.export: the archive gives the ONNX file's probabilities, and one that could run code is not read."""

import dataclasses
import io
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from strategies import build_trained, state_arrays

from effnet.arch.catalog import get_spec
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, MissingExtraError
from effnet.exporting.bundle import export_onnx
from effnet.exporting.targets import write_export
from effnet.runtime.config import ModelConfig
from effnet.runtime.engines import open_engine

SIDE = 31
NAMES = ("cat", "café", "猫")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle's config, the path of its archive, pictures, and the ONNX file's rows."""
    folder = tmp_path_factory.mktemp("pt2")
    b0 = get_spec("b0", num_classes=len(NAMES))
    spec = dataclasses.replace(b0, stages=b0.stages[:2], head_channels=24)
    state = state_arrays(build_trained(spec, resolution=SIDE))
    config = ModelConfig(
        arch=spec, preprocess=Preprocess(resolution=SIDE), class_names=NAMES, temperature=0.6, threshold=0.5
    )
    images = np.random.default_rng(5).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    expected = open_engine(export_onnx(folder, config, state)).run(images)
    return config, write_export("pt2", folder, config, state), images, expected


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_any_batch_gives_the_probabilities_of_the_onnx_file(exported, threads):
    _, path, images, expected = exported
    engine, before = open_engine(path, threads=threads), torch.get_num_threads()
    assert (engine.side, engine.channels, engine.classes) == (SIDE, 3, len(NAMES))
    for batch in (1, 2, 5):
        np.testing.assert_allclose(engine.run(images[:batch]), expected[:batch], rtol=0, atol=1e-5)
    assert torch.get_num_threads() == before


def test_torch_alone_reads_the_archive_and_what_it_tells(exported):
    config, path, images, expected = exported
    told = {"class_names": "", "preprocess": "", "network": "", "threshold": ""}
    program = torch.export.load(path, extra_files=told)
    assert json.loads(told["class_names"]) == list(NAMES)
    assert json.loads(told["preprocess"]) == config.preprocess.to_dict()
    assert (told["network"], told["threshold"]) == ("b0", "0.5")
    found = program.module()(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_archive_tells_nothing_of_the_machine_that_wrote_it(exported):
    with zipfile.ZipFile(exported[1]) as archive:
        for name in archive.namelist():
            assert b".py" not in archive.read(name), name


class Bomb:
    """Fails the test where it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of an archive was run')",))


def rewrite(source, target, changes, *, more=()):
    """Copies an archive with other bytes under some names, and with more files."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            data, inner = old.read(name), name.partition("/")[2]
            new.writestr(name, changes[inner](data) if inner in changes else data)
        for name, data in more:
            new.writestr(f"{root}/{name}", data)
    return target


def replacing(before, after):
    def change(data):
        assert before in data
        return data.replace(before, after, 1)

    return change


GRAPH, SAMPLE, WEIGHTS = "models/model.json", "data/sample_inputs/model.pt", "data/weights/model_weights_config.json"
ATTACKS = {
    "an operator from anywhere": {GRAPH: replacing(b"torch.ops.aten.silu.default", b"torch.os.system")},
    "an operator of another library": {GRAPH: replacing(b"torch.ops.aten.silu.default", b"torch.ops.prim.layout.x")},
    "a size that is code": {GRAPH: replacing(b"Symbol('s", b"exit('s")},
    "a guard that is code": {GRAPH: replacing(b'"guards_code": []', b'"guards_code": ["exit()"]')},
    "an operator as an argument": {GRAPH: replacing(b'{"as_tensor": {"name": "image"}}', b'{"as_operator": "exit"}')},
    "a type of its own": {GRAPH: replacing(b"builtins.tuple", b"builtins.print")},
    "metadata of another kind": {GRAPH: replacing(b'"torch_fn"', b'"custom"')},
    "a pickled weight": {WEIGHTS: replacing(b'"use_pickle": false', b'"use_pickle": true')},
    "pickled pictures": {SAMPLE: lambda _: pickle.dumps(Bomb())},
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_archive_that_could_run_code_is_not_read(exported, tmp_path, name):
    path = rewrite(exported[1], tmp_path / "model.pt2", ATTACKS[name])
    with pytest.raises(BundleError, match="which could run code when it is read"):
        open_engine(path)


@pytest.mark.parametrize(
    "member",
    ["data/weights/model.pt", "data/constants/custom_obj_0", "data/aotinductor/model/a.so", "models/other.json"],
)
def test_a_file_that_effnet_does_not_write_is_not_read(exported, tmp_path, member):
    path = rewrite(exported[1], tmp_path / "model.pt2", {}, more=[(member, pickle.dumps(Bomb()))])
    with pytest.raises(BundleError, match="it has a file"):
        open_engine(path)


def test_the_attacks_are_real(exported, tmp_path):
    """Guards the tests above: torch itself runs what they hide."""
    path = rewrite(exported[1], tmp_path / "model.pt2", {SAMPLE: lambda _: zipped_pickle(Bomb())})
    with pytest.raises(SystemExit, match="code of an archive was run"):
        torch.export.load(path)
    with pytest.raises(BundleError, match="example inputs that are no tensors"):
        open_engine(path)


def zipped_pickle(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_a_file_that_is_absent_or_damaged_is_refused(exported, tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(BundleError, match="none is there: `effnet export` writes it"):
        open_engine(path)
    for data in (b"", b"no archive", exported[1].read_bytes()[:5000]):
        path.write_bytes(data)
        with pytest.raises(BundleError, match=r"is no whole archive of torch\.export"):
            open_engine(path)
    rewrite(exported[1], path, {GRAPH: lambda _: b"{}"})
    with pytest.raises(BundleError, match="cannot read"):
        open_engine(path)


def test_without_torch_the_extra_is_named(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'needs torch, .* pip install "effnet\[train\]"'):
        open_engine(exported[1])
