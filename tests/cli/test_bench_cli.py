"""bench --runtimes: the exports of a bundle in one table."""

import functools
import json
import shutil

import pytest
from bundles import make_bundle
from messages import refused

import effnet
from effnet.bundle.config import write_digests
from effnet.errors import BundleError
from effnet.jobs.procedure import Procedure
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.speed.timing import Timing

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("bench") / "bundle")
    effnet.export(folder, to=["onnx", "openvino"], data="digits")
    return folder


@pytest.fixture
def calls():
    """The made-up measurements of a test."""
    return []


@pytest.fixture
def run_quickly(run_cli, calls):
    """Return a runner of a command with a made-up measurement of each file, at once."""

    def measure(path, *, threads, batch, rounds, seconds):
        calls.append((path.name, threads, batch))
        if path.read_bytes()[:4] == b"dead":
            raise BundleError(f"measuring {path} failed: it is no model")
        return timing(p50_ms=2.0 * threads, batch=batch, threads=threads)

    return functools.partial(run_cli, procedure=Procedure(stopwatch=Stopwatch(once=measure)))


def timing(**changes):
    fields = {"p50_ms": 2.0, "p95_ms": 3.0, "rounds_ms": (2.0,), "runs": 20, "load_ms": 5.0, "memory_mb": 7.0}
    return Timing(**{**fields, "size_mb": 1.0, "threads": 1, "batch": 1, **changes})


def test_two_runtimes_are_really_measured(run_cli, plain):
    ran = run_cli("bench", plain, "--runtimes", "onnxruntime,openvino", "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert [row["format"] for row in found["rows"]] == ["onnx", "openvino"]
    for row in found["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert len(row["rounds_ms"]) == 3
        assert row["load_ms"] > 0 < row["memory_mb"]
    assert {"onnxruntime", "openvino"} <= set(found["versions"])


def test_it_is_said_that_the_machine_was_busy(run_cli, plain):
    """Busy depending on the number of threads: one thread is measured correctly."""

    def measure(path, *, threads, **options):
        return timing(p50_ms=9.0, least_ms=2.0, threads=threads, waited=0.4 if threads < 3 else 0.0)

    procedure = Procedure(stopwatch=Stopwatch(once=measure))
    ran = run_cli("bench", plain, "--threads", "1,2,3", "--batch", "1,8", procedure=procedure)
    busy = [line for line in ran.out.splitlines() if line.startswith("The machine was busy: ")]
    assert len(busy) == 2
    assert "took 40% of the processor time; the latency of one thread counts" in busy[0]
    assert "hides the latency of 2 threads" in busy[1]


def test_one_table_has_every_runtime_precision_and_number_of_threads(run_quickly, plain, calls):
    ran = run_quickly("bench", plain, "--runtimes", "all", "--threads", "1,2")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines() if " fp32 " in line]
    assert [row[0] + row[2] for row in rows] == ["onnxruntime1", "openvino1", "onnxruntime2", "openvino2"]
    known = json.loads((plain / "exports.json").read_text())["exports"]["openvino"]
    assert rows[1][-3:] == [f"{known['accuracy']:.2%}", "100.00%", "-"]
    assert [rows[1][5], rows[3][5]] == ["2", "4"]
    line = next(line for line in ran.out.splitlines() if line.startswith("Not exported yet: "))
    assert line.startswith(f"Not exported yet: effnet export {plain} --to onnx-fp16,onnx-w8,onnx-int8,openvino-fp16")
    assert line.endswith(" --data DATA")
    # Forwards, then backwards, so that background load affects all equally.
    assert calls[:4] == [("model.onnx", 1, 1), ("model.xml", 1, 1), ("model.xml", 1, 1), ("model.onnx", 1, 1)]


def test_with_data_the_exports_are_scored_now(run_cli, run_quickly, plain):
    ran = run_quickly("bench", plain, "--runtimes", "all", "--data", "digits", "--batch", "1,4", "--format", "json")
    found = json.loads(ran.out)
    assert [(row["format"], row["batch"]) for row in found["rows"]] == [
        ("onnx", 1), ("openvino", 1), ("onnx", 4), ("openvino", 4),
    ]  # fmt: skip
    scored = json.loads(run_cli("evaluate", plain, "digits", "--format", "json").out)
    assert {row["accuracy"] for row in found["rows"]} == {scored["accuracy"]}
    assert {(row["agreement"], row["scored"]) for row in found["rows"]} == {(1.0, 269)}


def test_a_runtime_that_is_not_installed_has_a_line(run_quickly, plain, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    ran = run_quickly("bench", plain, "--runtimes", "all")
    assert ran.code == 0
    assert "Not installed: openvino: this needs openvino, which is not installed; install it with: pip" in ran.out
    assert "openvino-int8" not in ran.out
    assert "this needs openvino" in refused(run_quickly("bench", plain, "--runtimes", "openvino"))


def test_a_file_that_cannot_be_measured_does_not_stop_the_others(run_quickly, plain, calls, tmp_path):
    bundle = shutil.copytree(plain, tmp_path / "bundle")
    (bundle / "model.xml").write_bytes(b"dead")
    write_digests(bundle, {})  # else it would not even be tried
    ran = run_quickly("bench", bundle, "--runtimes", "all", "--data", "digits")
    assert ran.code == 2
    assert ran.err == f"effnet: openvino: measuring {bundle / 'model.xml'} failed: it is no model\n"
    assert [line.split()[0] for line in ran.out.splitlines() if " fp32 " in line] == ["onnxruntime"]
    assert calls.count(("model.xml", 1, 1)) == 1


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--runtimes", "tflite"], "a runtime must be one of onnxruntime, openvino"),
        (["--runtimes", ","], "at least one runtime"),
        (["--data", "digits"], "add --runtimes all"),
        (["--runtimes", "all", "--threads", "x"], "--threads must be comma-separated whole numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(words, reason, run_cli, plain):
    assert reason in refused(run_cli("bench", plain, *words))


def test_a_bundle_without_exports_is_told_how_to_make_one(run_cli, plain, tmp_path):
    shutil.copyfile(plain / "config.json", tmp_path / "config.json")
    message = refused(run_cli("bench", tmp_path, "--runtimes", "all"))
    assert message.endswith(f"has no export for these runtimes: effnet export {tmp_path} --to onnx")


def test_a_bundle_that_deploys_an_unknown_format_is_refused(run_cli, plain, tmp_path):
    """Regression: --runtimes all measured the other exports."""
    bundle = shutil.copytree(plain, tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(config | {"deployed": "pt2"}))
    for words in (("bench", bundle), ("bench", bundle, "--runtimes", "all")):
        assert "`deployed` in config.json: " in refused(run_cli(*words))
