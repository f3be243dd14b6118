"""Fits for another device: refusals and warnings about its profile, and its predictions instead of measurements."""

import dataclasses

import pytest
from made_up import latency_ms, make_profile, memory_mb

from effnet.arch.catalog import get_spec
from effnet.errors import InputError
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.deploy.device import describe_device, device_of, predicted_figures, predicted_timing
from effnet.jobs.fit.job import job_of
from effnet.measurement.profile.profile import write_profile
from effnet.planner.space import in_precision, only_candidate
from effnet.planner.target import Target
from effnet.runtimes.installed import runtime_version

HERE = {"onnxruntime": runtime_version("onnxruntime")}
SPEC = get_spec("lite0", num_classes=10)


@pytest.fixture
def planned(tmp_path):
    """Return a writer of a profile and the job of a fit for it."""

    def make(profile, *, threads=1, runtime="onnxruntime"):
        path = tmp_path / "pi5.json"
        write_profile(profile, path)
        return job_of(FitConfig("unread", threads=threads, epochs=1, runtime=runtime, device=path))

    return make


def profile(**changes):
    return dataclasses.replace(make_profile(networks=30, mixtures=30), **({"versions": HERE} | changes))


def test_without_a_profile_there_is_no_device(planned):
    job = dataclasses.replace(planned(profile()), target=Target())
    assert device_of(job) is None
    assert describe_device(job) == []


def test_what_is_predicted_is_near_what_the_device_takes(planned):
    """The times of the device follow a formula that the table does not know."""
    device = device_of(planned(profile()))
    assert device.keys == ("latency_ms", "memory_mb")
    found = predicted_figures(device, SPEC, "fp32")
    assert found["latency_ms"] == pytest.approx(latency_ms(SPEC), rel=0.08)
    assert found["memory_mb"] == pytest.approx(memory_mb(SPEC), rel=0.10)


def test_weights_of_fewer_bits_take_as_long_as_those_of_32(planned):
    device = device_of(planned(profile()))
    fp32 = predicted_figures(device, SPEC, "fp32")
    assert predicted_figures(device, SPEC, "w8") == predicted_figures(device, SPEC, "fp16") == fp32
    with pytest.raises(InputError, match=r"measured in int8; it was in fp32: .*--precision int8"):
        predicted_figures(device, SPEC, "int8")


def test_a_prediction_stands_in_for_a_measurement_of_no_rounds(planned):
    candidate = in_precision(only_candidate(SPEC), "w8")
    with_memory = device_of(planned(profile()))
    timing = predicted_timing(with_memory, candidate, size_mb=3.5, threads=1)
    assert (timing.rounds_ms, timing.runs, timing.size_mb, timing.threads) == ((), 0, 3.5, 1)
    assert timing.p50_ms == timing.p95_ms == predicted_figures(with_memory, SPEC, "fp32")["latency_ms"]


def test_a_profile_that_measured_no_memory_tells_only_latency(planned):
    rows = tuple(dataclasses.replace(row, memory_mb=None) for row in profile().measured)
    device = device_of(planned(profile(measured=rows)))
    assert device.keys == ("latency_ms",)
    assert set(predicted_figures(device, SPEC, "fp32")) == {"latency_ms"}
    # Instead, counts of the file and the largest feature maps.
    candidate = only_candidate(SPEC)
    timing = predicted_timing(device, candidate, size_mb=3.5, threads=1)
    assert timing.memory_mb == 3.5 + candidate.cost.peak_memory_bytes / 1e6


@pytest.mark.parametrize(
    ("changes", "settings", "says"),
    [
        (
            {"runtime": "openvino", "versions": {"openvino": "2026.4"}},
            {},
            "the profile must be of onnxruntime; it is of openvino",
        ),
        ({"threads": 4}, {}, "measured with 4: give threads=4"),
        ({}, {"threads": 2}, "measured with 1: give threads=1"),
        ({}, {"runtime": "litert"}, "the profile must be of litert; it is of onnxruntime: profile litert"),
    ],
)
def test_a_profile_that_cannot_match_is_refused(planned, changes, settings, says):
    job = planned(profile(**changes), **settings)
    for read in (device_of, describe_device):
        with pytest.raises(InputError, match=says):
            read(job)


def test_another_version_and_doubtful_figures_are_warned_of(planned):
    first, *doubts = describe_device(planned(profile()))
    assert first.startswith("Planning for made up with its profile of 2026-11-22")
    assert "latency and peak memory are predicted, not measured" in first
    assert doubts == []
    other = profile(versions={"onnxruntime": "1.2.0"}, errors={"fp32 latency": 0.4})
    _, version, error = describe_device(planned(other))
    assert f"measured with onnxruntime 1.2.0; {HERE['onnxruntime']} may be" in version
    assert "missed by 40.0%" in error


def test_a_profile_that_was_changed_between_two_fits_is_read_anew(planned):
    """Two fits in one process: the second must not plan with the profile that the first has read."""
    slow = tuple(dataclasses.replace(row, latency_ms=10 * row.latency_ms) for row in profile().measured)
    before = predicted_figures(device_of(planned(profile())), SPEC, "fp32")["latency_ms"]
    after = predicted_figures(device_of(planned(profile(measured=slow))), SPEC, "fp32")["latency_ms"]
    assert after == pytest.approx(10 * before, rel=0.05)


@pytest.mark.parametrize("words", [["one.json"], ["good.json", "--runtime", "litert"], ["cut.json"]])
def test_the_command_refuses_a_profile_in_one_line_and_leaves_nothing(words, tmp_path, tiny_images, run_cli):
    write_profile(profile(), tmp_path / "good.json")
    text = (tmp_path / "good.json").read_text()
    (tmp_path / "cut.json").write_text(text[: len(text) // 2])
    (tmp_path / "one.json").write_text(text.replace('"threads":1', '"threads":3'))
    name, *rest = words
    ran = run_cli("fit", tiny_images, "--device", tmp_path / name, *rest, "--out", tmp_path / "out")
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
