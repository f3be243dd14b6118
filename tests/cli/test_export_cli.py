"""export --to: several formats in one command, and refusals."""

import json
import shutil

import pytest
from bundles import make_bundle
from messages import refused

from effnet.errors import EffnetError
from effnet.runtimes.registry import find_format

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("export") / "bundle")


@pytest.fixture
def bundle(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "bundle")


@pytest.mark.elsewhere
def test_each_format_has_its_line(run_cli, bundle):
    ran = run_cli(
        "export",
        bundle,
        "--to",
        "onnx,openvino,openvino-int8",
        "--data",
        "digits",
        "--set",
        "images=8",
        "--max-drop",
        50,
    )
    assert (ran.code, ran.err) == (0, "")
    first, second, third = ran.out.splitlines()
    assert first.startswith(f"wrote {bundle / 'model.onnx'}: largest difference of a probability ")
    assert second.startswith(f"wrote {bundle / 'model.xml'}: ")
    assert "same class on 100.0% of 64 images; accuracy " in second
    assert " on 269 test images, 0." in third
    assert " pp on 269 labelled images" in third
    assert "labelled images" not in second
    assert {"model.int8.xml", "model.int8.bin", "exports.json"} <= {path.name for path in bundle.iterdir()}


def test_an_export_is_used_where_it_is_asked_for(run_cli, bundle):
    run_cli("export", bundle, "--to", "openvino")
    (bundle / "model.onnx").unlink()
    found = json.loads(run_cli("evaluate", bundle, "digits", "--use", "openvino", "--format", "json").out)
    ledger = json.loads((bundle / "exports.json").read_text())
    assert found["images"] == 269
    assert ledger["exports"]["openvino"]["accuracy"] is None
    assert "there must be a model at" in refused(run_cli("evaluate", bundle, "digits"))
    assert "did you mean 'openvino'" in refused(run_cli("predict", bundle, "x.png", "--use", "openvin"))
    assert "there must be a model at" in refused(run_cli("evaluate", bundle, "digits", "--use", "openvino-int8"))


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--to", "onyx"], "a format must be one of onnx, "),
        (["--to", ","], "export takes at least one format"),
        (["--to", "openvino-int8"], "give the data that the bundle was trained on: --data DATA"),
        (
            ["--to", "openvino-int8", "--data", "digits", "--set", "images=4", "--set", "method=entropy"],
            "minmax or percentile",
        ),
        (
            ["--to", "openvino-int8", "--data", "digits", "--set", "images=4", "--set", "float_layers=stem"],
            "got 'stem'",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(words, reason, run_cli, bundle):
    before = sorted(path.name for path in bundle.iterdir())
    assert reason in refused(run_cli("export", bundle, *words))
    assert sorted(path.name for path in bundle.iterdir()) == before


def test_a_format_that_fails_is_named_and_the_others_are_written(run_cli, bundle, monkeypatch):
    def fail(*_, **__):
        raise EffnetError("no such operator")

    monkeypatch.setattr("effnet.runtimes.openvino.writer.to_openvino", fail)
    ran = run_cli("export", bundle, "--to", "openvino,onnx")
    assert (ran.code, ran.err) == (1, "effnet: openvino: no such operator\n")
    assert ran.out.startswith(f"wrote {bundle / 'model.onnx'}: ")


def test_a_runtime_that_only_converts_says_so(capsys):
    from pathlib import Path

    from effnet.cli.deploy.export import in_words
    from effnet.jobs.export.api import Exported

    found = Exported(
        format=find_format("coreml"), path=Path("model.mlpackage"), size_bytes=2_500_000, check=None, random=True
    )
    assert in_words(found) == ("wrote model.mlpackage: 2.50 MB, converted, not run: this machine has no runtime for it")
