"""Latency and memory are measured in a separate process, whose failures are reported."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest

import effnet
from effnet.arch.scale import with_total_stride
from effnet.errors import BundleError
from effnet.measurement.speed import timing
from effnet.measurement.speed.timing import Timing, busy_sentence, time_model
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.weights.folding import random_weights


def write(spec, path):
    half = (0.5,) * spec.in_channels
    write_onnx(to_onnx(spec, random_weights(spec), mean=half, std=half), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the file of a network of a few thousand weights."""
    spec = with_total_stride(effnet.scale(effnet.get_spec("b0", num_classes=3), phi=-20, resolution=16), 8)
    return write(spec, tmp_path_factory.mktemp("small") / "model.onnx")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the file of a network of 16 MB."""
    return write(effnet.get_spec("b0", num_classes=3), tmp_path_factory.mktemp("large") / "model.onnx")


def test_a_timing_says_how_it_came_about(small):
    found = time_model(small, rounds=2, seconds=0.05)
    assert (found.threads, found.batch, len(found.rounds_ms)) == (1, 1, 2)
    assert found.runs >= 2 * 20
    assert 0 < found.p50_ms <= found.p95_ms
    assert found.p50_ms == pytest.approx(min(found.rounds_ms))
    assert found.size_mb == small.stat().st_size / 1e6
    assert found.images_per_second == pytest.approx(1e3 / found.p50_ms)
    assert found.load_ms > 0
    assert 0 < found.memory_mb < 100


def test_a_larger_network_takes_longer_and_more_memory(small, large):
    little, much = (time_model(path, rounds=1, seconds=0.05) for path in (small, str(large)))
    assert much.p50_ms > 5 * little.p50_ms
    assert much.memory_mb > little.memory_mb + 10
    assert much.memory_mb > much.size_mb > 15


def test_a_batch_is_faster_a_image_than_one_by_one_is_slow(small):
    one, many = (time_model(small, batch=batch, rounds=1, seconds=0.05) for batch in (1, 16))
    assert many.batch == 16
    assert many.p50_ms > 2 * one.p50_ms
    assert many.images_per_second == pytest.approx(16e3 / many.p50_ms)


def test_the_calmest_round_counts(monkeypatch, small):
    printed = (
        '{"load_ms": 1, "memory_bytes": 2e6, "rounds_ms": [[9, 9, 9], [1, 2, 3], [2, 2, 99]], "paces_ms": [3, 4, 5], '
        '"waited": [0.9, 0.4, 0]}'
    )

    def done(*_, **__):
        return subprocess.CompletedProcess([], 0, stdout=f"a warning of the runtime\n{printed}\n", stderr="")

    monkeypatch.setattr(timing.subprocess, "run", done)
    found = time_model(small)
    assert (found.p50_ms, found.rounds_ms, found.runs) == (2, (9, 2, 2), 9)
    assert found.p95_ms == pytest.approx(np.percentile([1, 2, 3], 95))
    assert (found.memory_mb, found.pace_ms, found.least_ms, found.waited) == (2, 4, 1, 0.4)


def test_on_a_busy_machine_several_threads_take_about_their_fastest_run():
    calm = Timing(
        p50_ms=4.1, p95_ms=4.4, rounds_ms=(4.1,), runs=20, load_ms=1, memory_mb=9, size_mb=1, threads=2, batch=1,
        least_ms=4.0, waited=0.02,
    )  # fmt: skip
    busy = dataclasses.replace(calm, p50_ms=9.5, waited=0.5)
    assert (calm.busy, calm.uncertain, calm.latency_ms) == (False, False, 4.1)
    assert (busy.busy, busy.uncertain) == (True, True)
    assert busy.latency_ms == pytest.approx(calm.latency_ms, rel=0.05)
    alone = dataclasses.replace(busy, threads=1)
    assert (alone.busy, alone.uncertain, alone.latency_ms) == (True, False, busy.latency_ms)


@pytest.mark.parametrize(
    "threads, uncertain, end",
    [
        (1, False, "the latency of one thread counts only its own processor time"),
        (2, False, "end other programs and measure again if the latency matters"),
        (2, True, "which hides the latency of 2 threads: end other programs and measure again"),
    ],
)
def test_it_is_said_how_busy_the_machine_was(threads, uncertain, end):
    said = busy_sentence(0.476, threads=threads, uncertain=uncertain)
    assert said.startswith("The machine was busy: other processes took 48% of the processor time")
    assert said.endswith(end)


def test_rounds_are_added_while_the_machine_is_slower_than_it_can_be(small):
    """No machine has a pace of 0 ms, and every machine one faster than an hour."""
    least, most = (len(time_model(small, rounds=2, seconds=0.01, pace_ms=pace).rounds_ms) for pace in (3.6e6, 0.0))
    assert least == 2 < most <= 20


@pytest.mark.parametrize("content, reason", [(None, "there must be a model at"), (b"no model", "cannot read")])
def test_a_file_that_cannot_be_measured_is_named(content, reason, tmp_path):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"^measuring .*model\.onnx failed: .*{reason}"):
        time_model(path)


def test_a_model_with_other_inputs_is_an_error_of_one_line(tmp_path, small):
    import onnx

    model = onnx.load(small)
    model.graph.input[0].name = model.graph.node[0].input[0] = "photo"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=r"^measuring .* failed: .*photo") as error:
        time_model(tmp_path / "model.onnx")
    assert "\n" not in str(error.value)


def test_a_process_that_dies_without_a_word_is_told(monkeypatch, small):
    monkeypatch.setattr(timing.sys, "executable", "false")
    with pytest.raises(BundleError, match="failed: exit status 1"):
        time_model(small)


def test_a_measurement_that_takes_too_long_is_ended(small):
    with pytest.raises(BundleError, match=r"took more than 0\.01 s"):
        time_model(small, timeout=0.01)


def test_the_worker_prints_one_line_of_json(small, run_python):
    ran = run_python(
        "-m", "effnet.measurement.speed.worker", small, 1, 1, 0.01, 2, "effnet.runtimes.onnxruntime", "inf"
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("\n") == 1
    assert set(json.loads(ran.out)) == {"load_ms", "memory_bytes", "rounds_ms", "paces_ms", "waited"}
