"""From trained weights to the file for the device: its accuracy drop in its own runtime decides whether it ships."""

import dataclasses

import numpy as np
import pytest
from devices import timing
from procedures import UNTIMED

from effnet.bundle.config import read_config
from effnet.bundle.weights import load_state
from effnet.compression.ladder import climb
from effnet.compression.tools import Tools
from effnet.data.datasets import Split, read_dataset
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.deploy import export as module
from effnet.jobs.fit.deploy.export import deploy
from effnet.jobs.fit.job import job_of
from effnet.measurement.answers import predict_split
from effnet.measurement.budget import Budget
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.planner.target import Target
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import open_engine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return read_dataset("digits")


@pytest.fixture
def deployed(bundle_copy, digits, tmp_path):
    """Return a function that deploys a copy of the small bundle."""

    def make(precision, *, target=None, budget=None, dataset=digits):
        job = job_of(FitConfig("digits", epochs=2, out=tmp_path / "out", procedure=UNTIMED))
        job = dataclasses.replace(job, budget=budget or Budget(), target=target or Target())
        config, state = read_config(bundle_copy), load_state(bundle_copy)
        return deploy(bundle_copy, config, state, dataset, precision=precision, job=job)

    return make


def accuracy(bundle, split, name):
    probabilities, indices = predict_split(Predictor(bundle, format=name), split)
    return float((probabilities.argmax(1) == split.labels[indices]).mean())


def scripted(monkeypatch, *, wrong):
    """Make the fp32 predictor right on every image, and the other on all but `wrong`."""
    formats = []

    def answer(predictor, split):
        formats.append(predictor.format.name)
        return np.arange(len(split)) >= (0 if predictor.format.precision == "fp32" else wrong)

    monkeypatch.setattr(module, "right_answers", answer)
    return formats


def test_int8_is_a_file_of_its_runtime_that_loses_no_more_than_it_may(deployed, bundle_copy, digits):
    pytest.importorskip("ai_edge_quantizer")
    pytest.importorskip("ai_edge_litert")
    target = Target(runtime="litert", precision="int8", max_drop=0.02)
    # A limit between the two files' sizes: fp32 exceeds it, and the first step that meets it is the last.
    found = deployed("int8", target=target, budget=Budget(size_mb=0.9 * _size_in_32_bits(bundle_copy)))
    assert found.format.name == found.config.deployed == "litert-int8"
    assert read_config(bundle_copy) == found.config
    before, after = (accuracy(bundle_copy, digits.val, name) for name in ("onnx", "litert-int8"))
    assert before > 0.3  # ten classes: better than chance
    assert after >= before - target.max_drop - 1e-9
    assert found.ladder["winner"]
    np.testing.assert_allclose(open_engine(found.path).run(_images(found, digits)).sum(1), 1, atol=0.05)


def test_int8_that_was_asked_for_is_not_replaced_by_32_bits_that_keep_the_budget(deployed, monkeypatch):
    monkeypatch.setattr(module, "tools_of", faster_in_8_bits)
    found = deployed("int8", target=Target(precision="int8", max_drop=0.5), budget=Budget(latency_ms=1e4))
    assert (found.format.name, found.refused) == ("onnx-int8", "")


def test_int8_that_keeps_no_gate_is_refused_where_nothing_else_was_asked_for(deployed, monkeypatch):
    def without_int8(subject, dataset, *, runtime, folder, budget, tools, **kwargs):
        def answer(place, format_name, split, threads):
            return np.full(len(split), format_name == "onnx")

        tools = dataclasses.replace(faster_in_8_bits(runtime), answer=answer)
        return climb(
            subject, dataset, runtime=runtime, folder=folder, budget=budget, tools=tools, train=False, **kwargs
        )

    monkeypatch.setattr(module, "climb", without_int8)
    found = deployed("int8", target=Target(precision="int8"), budget=Budget(latency_ms=1e4))
    assert found.format.name == "onnx"
    assert "no int8 step loses at most 0.5 percentage points" in found.refused
    assert deployed("int8", budget=Budget(latency_ms=1e4)).refused == ""  # with auto, fp32 is accepted


def faster_in_8_bits(runtime, **_):
    """Make int8 take half the time, which it does not in a network as tiny as this one."""
    return Tools(stopwatch=Stopwatch(once=lambda path, **_: timing(1.0 if "int8" in path.name else 2.0)))


def _size_in_32_bits(bundle):
    from effnet.runtimes.write import write_export

    path = write_export("litert", bundle, read_config(bundle), load_state(bundle))
    size = path.stat().st_size / 1e6
    path.unlink()
    return size


def _images(found, digits):
    from effnet.data.preprocess import resize_and_crop

    return np.stack([resize_and_crop(image, found.config.preprocess) for image in digits.val.sources[:4]])


def test_sixteen_bits_are_shipped_where_they_name_the_same(deployed, bundle_copy, digits):
    found = deployed("fp16")
    assert (found.refused, found.format.name, found.path.name) == ("", "onnx-fp16", "model.fp16.onnx")
    assert read_config(bundle_copy).deployed == "onnx-fp16"
    lost = accuracy(bundle_copy, digits.val, "onnx") - accuracy(bundle_copy, digits.val, "onnx-fp16")
    assert lost <= 0.005


def test_what_loses_more_than_it_may_is_refused_with_the_figures(deployed, monkeypatch):
    formats = scripted(monkeypatch, wrong=3)  # of 269
    assert "3 became wrong" in deployed("fp16").refused
    assert formats == ["onnx", "onnx-fp16"]
    found = deployed("w8")
    assert "onnx-w8 loses 1.12 percentage points" in found.refused
    assert "more than the allowed 0.5 percentage points" in found.refused


def test_what_loses_no_more_than_it_may_is_not(deployed, monkeypatch):
    scripted(monkeypatch, wrong=3)
    assert deployed("fp16", target=Target(max_drop=0.012)).refused == ""


def test_thirty_two_bits_are_what_others_are_compared_with(deployed, monkeypatch):
    formats = scripted(monkeypatch, wrong=200)
    assert deployed("fp32").refused == ""
    assert formats == []


def test_without_validation_images_nothing_judges(deployed, digits, monkeypatch):
    formats = scripted(monkeypatch, wrong=200)
    empty = Split(sources=digits.val.sources[:0], labels=digits.val.labels[:0])
    assert deployed("fp16", dataset=dataclasses.replace(digits, val=empty)).refused == ""
    assert formats == []


@pytest.mark.parametrize(("profile", "expected"), [("", 2.0), ("pi5.json", None)])
def test_another_devices_milliseconds_are_no_limit_of_what_is_timed_here(deployed, monkeypatch, profile, expected):
    class Asked(Exception):
        pass

    def climb(*_, budget, gate, **__):
        assert (budget.size_mb, gate.max_drop) == (1.5, 0.03)
        assert budget.latency_ms == expected
        raise Asked

    monkeypatch.setattr(module, "climb", climb)
    with pytest.raises(Asked):
        deployed("int8", target=Target(profile=profile, max_drop=0.03), budget=Budget(latency_ms=2.0, size_mb=1.5))
