"""The profile's file, and the command that writes it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from made_up import make_profile

from effnet.errors import InputError, MissingExtraError
from effnet.jobs import profile as job
from effnet.jobs.profile import Plan, profile, unfinished_path
from effnet.measurement.profile import visits
from effnet.measurement.profile.profile import Clock, check_profile, checksum, read_profile, write_profile
from effnet.measurement.profile.table import predict
from effnet.runtimes.untrained import write_graph
from effnet.system.machine import clock_mhz

TINY = Plan(networks=3, mixtures=8, memory_networks=2, least=4, least_memory=2, seconds=6.0)


@pytest.fixture
def tiny_plan(monkeypatch):
    """Make the command measure a few networks for seconds."""
    monkeypatch.setattr(job, "PLAN", TINY)
    monkeypatch.setattr(visits, "VISIT_SECONDS", 0.002)
    monkeypatch.setattr(visits, "MOST_VISITS", 5)


@pytest.fixture
def file(tmp_path):
    write_profile(make_profile(networks=4, mixtures=4), tmp_path / "pi.json")
    return tmp_path / "pi.json"


def test_a_profile_is_read_as_it_was_written(file):
    assert read_profile(file) == make_profile(networks=4, mixtures=4)


def test_a_file_that_was_cut_off_anywhere_is_refused(file):
    text = file.read_text()
    for length in (0, 1, len(text) // 2, len(text) - 3):
        file.write_text(text[:length])
        with pytest.raises(InputError, match="truncated"):
            read_profile(file)


def test_a_changed_number_is_noticed(file):
    data = json.loads(file.read_text())
    data["measured"][0]["latency_ms"] *= 0.5
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match="was changed since it was written"):
        read_profile(file)


def test_the_same_content_laid_out_otherwise_is_the_same_profile(file):
    file.write_text(json.dumps(json.loads(file.read_text()), indent=1, sort_keys=True))
    assert read_profile(file) == make_profile(networks=4, mixtures=4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "must hold a device profile with its checksum"),
        ('{"format": 1}', "must hold a device profile with its checksum"),
        ('{"format": 99, "checksum": ""}', "reads a device profile of format 1; .* has 99"),
        ("\udcff", "truncated or not JSON"),
    ],
)
def test_other_files_are_refused(file, text, says):
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=says):
        read_profile(file)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threads": "two"}, "threads must be a whole number"),
        ({"runtime": ["onnxruntime"]}, "runtime must be a runtime's name; got ['onnxruntime']"),
        ({"versions": {"onnxruntime": 1.32}}, "the version of onnxruntime must be text; got 1.32"),
        ({"versions": None}, "versions must be names with their values; got None"),
        ({"machine": ["cpu"]}, "machine must be names with their values"),
        ({"errors": {"fp32 latency": "bad"}}, "the error of fp32 latency must be a finite number; got 'bad'"),
        ({"seconds": None}, "seconds must be a finite number"),
        ({"clock": {"start_mhz": "fast", "end_mhz": None, "reference_ms": []}}, "start_mhz must be a finite number"),
        ({"clock": {"start_mhz": None, "end_mhz": None, "reference_ms": [0] * 8}}, "reference_ms must be a finite"),
        ({"clock": None}, "lacks a part of a device profile"),
        ({"measured": {}}, "at least one measured network"),
        ({"measured": [3]}, "lacks a part of a device profile"),
    ],
)
def test_a_profile_of_another_make_is_refused_though_its_checksum_is_right(file, changes, says, run_cli):
    """As another program or a newer effnet may write it: a profile that is read must not fail during planning."""
    data = json.loads(file.read_text()) | changes
    del data["checksum"]
    file.write_text(json.dumps(data | {"checksum": checksum(data)}))
    ran = run_cli("profile", "--show", file)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_profile_of_a_runtime_that_this_effnet_lacks_is_shown(file, run_cli):
    data = json.loads(file.read_text()) | {"runtime": "mine", "versions": {"mine": "2.1"}}
    del data["checksum"]
    file.write_text(json.dumps(data | {"checksum": checksum(data)}))
    ran = run_cli("profile", "--show", file)
    assert (ran.code, ran.err) == (0, "")
    assert "mine 2.1, threads: 1" in ran.out


def test_a_spread_that_is_no_number_is_refused(file):
    data = json.loads(file.read_text())
    data["measured"][0]["spread"] = "wide"
    del data["checksum"]
    file.write_text(json.dumps(data | {"checksum": checksum(data)}))
    with pytest.raises(InputError, match="spread must be a finite number; got 'wide'"):
        read_profile(file)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="effnet profile"):
        read_profile(tmp_path / "none.json")


def test_a_profile_of_another_runtime_or_number_of_threads_is_refused():
    profile = make_profile(networks=1, mixtures=1)
    assert check_profile(profile, runtime="onnxruntime", threads=1, version="1.32.0") == ()
    with pytest.raises(InputError, match="must be of openvino; it is of onnxruntime"):
        check_profile(profile, runtime="openvino", threads=1)
    with pytest.raises(InputError, match=r"must be of 4 thread\(s\); it was measured with 1"):
        check_profile(profile, runtime="onnxruntime", threads=4)
    with pytest.raises(InputError, match="int8"):
        check_profile(profile, runtime="onnxruntime", threads=1, precision="int8")


def test_a_profile_of_another_version_is_warned_about():
    profile = make_profile(networks=1, mixtures=1)
    (warning,) = check_profile(profile, runtime="onnxruntime", threads=1, version="1.20.1")
    assert "1.32.0" in warning
    assert "1.20.1" in warning


def test_noise_throttling_and_bad_predictions_are_doubts():
    calm = make_profile(networks=2, mixtures=2)
    assert calm.doubts == ()
    noisy = dataclasses.replace(calm, measured=tuple(dataclasses.replace(r, spread=0.4) for r in calm.measured))
    hot = dataclasses.replace(calm, clock=Clock(reference_ms=(1.0,) * 4 + (1.3,) * 4))
    off = dataclasses.replace(calm, errors={"fp32 latency": 0.2, "fp32 memory": 0.2})
    assert [len(found.doubts) for found in (noisy, hot, off)] == [1, 1, 2]
    assert "too noisy" in noisy.doubts[0]
    assert "30%" in hot.doubts[0]


def test_the_clock_is_a_frequency_or_unknown():
    found = clock_mhz()
    assert found is None or 100 < found < 10_000


def test_the_command_writes_a_profile_that_predicts(tiny_plan, tmp_path, run_cli):
    out = tmp_path / "here.json"
    ran = run_cli("profile", "--precision", "fp32", "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert f"Profile: {out}" in ran.out
    assert os.listdir(tmp_path) == ["here.json"]
    profile = read_profile(out)
    assert (profile.runtime, profile.threads, profile.precisions) == ("onnxruntime", 1, ("fp32",))
    assert 4 <= len(profile.measured) <= 11
    assert sum(row.memory_mb is not None for row in profile.measured) == 2
    assert profile.clock.reference_ms
    assert profile.versions["onnxruntime"]
    largest = max(profile.measured, key=lambda row: row.latency_ms)
    assert 0.3 < predict(largest.spec, profile).latency_ms / largest.latency_ms < 3
    shown = run_cli("profile", "--show", out)
    assert shown.out.splitlines()[0] == ran.out.splitlines()[0]
    again = run_cli("profile", "--precision", "fp32", "--out", out, "--resume")
    assert again.code == 0
    assert read_profile(out) == profile, "a profile that is complete is not measured again"
    other = run_cli("profile", "--precision", "fp32", "--threads", "2", "--out", out, "--resume")
    assert other.code == 2
    assert "is complete" in other.err


_KILLED = """
import sys
from pathlib import Path
from effnet.jobs import profile as job
from effnet.measurement.profile import visits
visits.VISIT_SECONDS = 0.002
plan = job.Plan(networks=3, mixtures=8, memory_networks=2, least=4, least_memory=2, seconds=60.0)
visits.MOST_VISITS = visits.LEAST_VISITS = 10**6
job.profile(Path(sys.argv[1]), precisions=("fp32",), plan=plan)
"""


@pytest.mark.elsewhere
def test_a_profile_that_was_killed_goes_on(monkeypatch, tmp_path):
    out = tmp_path / "here.json"
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(out)]) as process:
        end = time.monotonic() + 300
        while not unfinished_path(out).is_file() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    before = json.loads(unfinished_path(out).read_text())
    with pytest.raises(InputError, match="begun with threads 1; got 2"):
        profile(out, threads=2, precisions=("fp32",), resume=True, plan=TINY)
    monkeypatch.setattr(visits, "VISIT_SECONDS", 0.002)
    monkeypatch.setattr(visits, "MOST_VISITS", 5)
    found = profile(out, precisions=("fp32",), resume=True, plan=TINY)
    assert not unfinished_path(out).exists()
    assert found.seconds >= before["seconds"]
    assert found.clock.reference_ms[: len(before["references"])] == tuple(round(r, 5) for r in before["references"])
    assert len(found.measured) >= len(before["visits"]["fp32"])


def test_torch_is_not_imported(tmp_path):
    code = _KILLED.replace("seconds=60.0", "seconds=1.0").replace("10**6", "1")
    code += "assert 'torch' not in sys.modules and 'scipy' not in sys.modules, 'imported'\n"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.json")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threads", "-1"], "threads must lie in 0..1024; got -1"),
        (["--precision", "fp8"], "--precision for onnxruntime must be one of fp32"),
        (["--out", "no/such/folder/p.json"], "a folder that exists"),
        (["--show", "none.json"], "there must be a device profile at none.json"),
        (["--runtime", "coreml"], "Invalid value for '--runtime'"),
    ],
)
def test_bad_options_end_with_code_2(words, says, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run_cli("profile", *words)
    assert ran.code == 2
    assert says in ran.err
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_last_good_profile(file, monkeypatch):
    before = file.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_profile(make_profile(networks=1, mixtures=1), file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_networks_are_grouped_by_the_memory_that_they_take():
    specs = [row.spec for row in make_profile(networks=10, mixtures=10).measured]
    assert visits.chunks_of(specs, memory_bytes=1e12) == [list(range(20))]
    assert visits.chunks_of(specs, memory_bytes=1.0) == [[number] for number in range(20)]


def test_a_network_is_settled_when_its_calmest_visits_agree():
    def seen(*fastest):
        return visits.settled([(2.0, least) for least in fastest])

    assert not seen(1.0, 1.0, 1.0)
    assert seen(1.0, 1.005, 1.01, 3.0, 4.0)
    assert not seen(1.0, 1.2, 1.3, 1.4, 1.5)
    assert seen(*(1.0 + n for n in range(visits.MOST_VISITS)))


def test_what_a_network_takes_is_its_fastest_run_in_a_calm_visit(tmp_path):
    specs = [row.spec for row in make_profile(networks=2, mixtures=2).measured]
    found = {n: [(2.0 * t * 1.02, 2.0 * t), (t * 1.02, t), (9.0, 5.0)] for n, t in enumerate((1.0, 2.0, 3.0))}
    found[3] = [(9.0, 4.0), (12.0, 4.4)]  # never quiet
    state = job._State(path=tmp_path / "x", settings={}, visits={"fp32": found})
    rows = job._rows(specs, "fp32", state)
    assert [row.latency_ms for row in rows] == pytest.approx([1.02, 2.04, 3.06, 4.08])


_OPENVINO = """
import sys
from pathlib import Path
from effnet.measurement.profile import visits
from effnet.jobs.profile import Plan, profile
visits.VISIT_SECONDS, visits.MOST_VISITS = 0.002, 5
plan = Plan(networks=1, mixtures=2, memory_networks=1, least=3, least_memory=1, seconds=3.0)
profile(Path(sys.argv[1]), runtime="openvino", precisions=("fp32",), plan=plan)
"""


@pytest.mark.elsewhere
def test_openvino_is_profiled_from_the_same_networks(tmp_path, run_python):
    """In its own process, as by the command: after OpenVINO has requested AMX, signals need a larger stack than
    the one that pytest's fault handler gives them, and a later test's Ctrl-C would end the process."""
    pytest.importorskip("openvino")
    ran = run_python("-c", _OPENVINO, tmp_path / "ov.json")
    assert ran.code == 0, ran.err
    profile = read_profile(tmp_path / "ov.json")
    assert len(profile.measured) == 3
    assert profile.versions["openvino"]


def test_int8_networks_are_written_for_a_profile(tmp_path):
    pytest.importorskip("effnet.runtimes.onnxruntime.int8_graph")
    spec = make_profile(networks=1, mixtures=0).measured[0].spec
    path = write_graph(spec, tmp_path, runtime="onnxruntime", precision="int8")
    assert path.name == "model.int8.onnx"
    assert visits.Opened(spec, runtime="onnxruntime", threads=1, precision="int8").visit()[1] > 0


def test_executorch_without_its_packages_says_how_to_install_them(monkeypatch, tmp_path):
    monkeypatch.setattr("effnet.runtimes.installed.find_spec", lambda name: None)
    spec = make_profile(networks=1, mixtures=0).measured[0].spec
    with pytest.raises(MissingExtraError, match=r"pip install .effnet\[executorch\]"):
        write_graph(spec, tmp_path, runtime="executorch", precision="fp32")
