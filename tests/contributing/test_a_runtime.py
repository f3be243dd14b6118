"""A new runtime is one folder and one line: the folder beside this file, which effnet does not know.

It is planned for, fitted, exported, measured, profiled and predicted with like any other.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import toy_runtime
from procedures import BRIEF, TINIEST, fit

import effnet
from effnet import errors
from effnet.bundle.config import read_config
from effnet.errors import BundleError
from effnet.jobs.bench import bench
from effnet.jobs.procedure import Procedure
from effnet.measurement.speed.timing import time_model
from effnet.planner.target import Target
from effnet.runtimes import registry
from effnet.runtimes.installed import runtime_version
from effnet.runtimes.ledger import read_ledger
from effnet.runtimes.untrained import write_graph

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def known():
    """Register the toy for this module; the processes that measure and try its files must find it."""
    tables = [registry.RUNTIMES, registry.FORMATS, registry.FEATURES, errors.PACKAGES]
    before = [dict(table) for table in tables]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        registry.register(toy_runtime.RUNTIME)
        yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


@pytest.mark.elsewhere
@pytest.mark.usefixtures("one_thread")
def test_a_fit_plans_for_it_measures_in_it_and_delivers_its_file(tiny_images, tmp_path):
    result = fit(
        tiny_images,
        runtime="toy",
        max_latency_ms=500,
        max_macs=2e5,
        epochs=1,
        weights="none",
        settings={"train.fused": False},
        out=tmp_path / "out",
        procedure=Procedure(stopwatch=BRIEF, space=TINIEST),
    )
    assert read_config(result.folder).deployed == "toy"
    assert result.report.deployed.runtime == "toy"
    assert f"toy {runtime_version('onnxruntime')}" in str(result.report)
    assert (result.folder / "model.npz").is_file()
    images = sorted(tiny_images.rglob("*.png"))[::10]
    found, expected = (effnet.load(result.folder, format=name).predict(images) for name in (None, "onnx"))
    assert effnet.load(result.folder).format.runtime == "toy"
    assert found == expected


def test_it_is_exported_verified_and_measured_beside_the_others(bundle_copy):
    found = effnet.export(bundle_copy, to=["toy"])["toy"]
    assert found.check.max_difference < 1e-5
    assert read_ledger(bundle_copy)["toy"].versions["onnxruntime"] == runtime_version("toy")
    effnet.export(bundle_copy, to=["toy"], features=True)
    assert effnet.load(bundle_copy, format="toy").embed(np.zeros((1, 16, 16, 1), np.uint8)).shape[0] == 1
    measured = bench(bundle_copy, runtimes=["onnxruntime", "toy"], rounds=1, seconds=0.0)
    assert {row.format.name for row in measured.rows} == {"onnx", "toy"}
    assert not measured.failed
    (bundle_copy / "model.npz").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=f"write it again with `effnet export {bundle_copy} --to toy`"):
        effnet.load(bundle_copy, format="toy").probabilities(np.zeros((1, 16, 16, 1), np.uint8))


def test_untrained_networks_are_written_for_its_profile(tmp_path):
    spec = effnet.scale(effnet.get_spec("b0", num_classes=3), phi=-20, resolution=32)
    path = write_graph(spec, tmp_path, runtime="toy", precision="fp32")
    assert registry.open_engine(path, runtime="toy").run(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 3)
    assert Target(runtime="toy").format("fp32").file == path.name


def test_a_package_that_a_new_process_cannot_import_is_named(bundle_copy, monkeypatch):
    effnet.export(bundle_copy, to=["toy"])
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(BundleError, match=r"must be able to import the runtime's package toy_runtime; .* PYTHONPATH"):
        time_model(bundle_copy / "model.npz", rounds=1, seconds=0.0)


def test_nothing_in_effnet_names_it():
    package = Path(effnet.__file__).parent
    found = subprocess.run(["grep", "-rniw", "--include=*.py", "toy", package], capture_output=True, text=True)
    assert found.stdout == ""
