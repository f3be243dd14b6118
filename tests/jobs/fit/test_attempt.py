"""One attempt repeated from its checkpoint: its calibration, also in the exported file."""

import dataclasses
import json
import math
import resource
import shutil
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from procedures import QUICK, measure_briefly

import effnet
from effnet.bundle.config import read_config
from effnet.data.datasets import Split, read_dataset
from effnet.data.preprocess import Preprocess, normalize, resize_and_crop
from effnet.data.view import reduction
from effnet.errors import ImageError
from effnet.jobs.fit.attempt import make_artifact
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.deploy.artifact import _images, publish
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.resume import read_plan
from effnet.jobs.procedure import Procedure
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import Abstain, expected_calibration_error, fit_temperature
from effnet.measurement.speed.pace import DISTURBED
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.planner.events import Said
from effnet.runtimes.registry import find_format

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def again(small_bundle, tmp_path):
    """Return a function that repeats the small fit's artifact without training, and its messages."""
    folder = shutil.copytree(small_bundle / "run" / "attempt-1", tmp_path / "attempt-1")
    plan = read_plan(small_bundle)
    attempt = plan.attempts[0]

    def make(abstain, dataset=None, procedure=QUICK, **asked):
        said = []
        config = FitConfig(
            "digits", epochs=2, out=tmp_path, weights="none", listener=said.append, procedure=procedure, **asked
        )
        job = dataclasses.replace(job_of(config), abstain=abstain)
        candidate = plan.candidates[attempt.candidate]
        artifact = make_artifact(candidate, attempt, dataset or read_dataset("digits"), folder=folder, job=job)
        return artifact, [event.text for event in said if isinstance(event, Said)]

    return make


def test_a_fit_is_calibrated_on_its_validation_split(small_bundle):
    report, config = json.loads((small_bundle / "report.json").read_text()), effnet.load(small_bundle).config
    found = report["calibration"]
    assert (found["images"], found["temperature"], found["threshold"]) == (269, config.temperature, None)
    assert config.temperature != 1
    assert report["test"]["sureness"]["nll"] < report["test"]["uncalibrated"]["nll"]
    # The raw weights give the logits, from which the temperature follows.
    module, val = effnet.load_module(small_bundle), read_dataset("digits").val
    images = np.stack([resize_and_crop(image, config.preprocess) for image in val.sources])
    with torch.no_grad():
        logits = module(torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)).numpy()
    assert fit_temperature(logits, val.labels) == pytest.approx(config.temperature, rel=2e-3)


def test_without_a_wish_nothing_changes(again, small_bundle):
    artifact, _ = again(Abstain())
    assert read_config(artifact.folder) == read_config(small_bundle)
    for name in ("model.onnx", "model.safetensors"):
        assert (artifact.folder / name).read_bytes() == (small_bundle / name).read_bytes(), name
    assert artifact.score.answered is artifact.score.unknown is None


def test_a_coverage_gives_a_threshold_that_every_runtime_finds(again):
    artifact, said = again(Abstain(coverage=0.8))
    model = effnet.load(artifact.folder)
    assert model.config.threshold == artifact.calibration.threshold > 0
    assert artifact.calibration.sentence in " ".join(said)
    probabilities, _ = predict_split(model, read_dataset("digits").val)
    assert (probabilities.max(1) >= model.config.threshold).mean() == pytest.approx(0.8, abs=0.01)
    assert artifact.score.answered.coverage == pytest.approx(0.8, abs=0.1)
    session = onnxruntime.InferenceSession(artifact.folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert float(session.get_modelmeta().custom_metadata_map["threshold"]) == model.config.threshold


def test_an_error_that_cannot_be_proven_is_said_and_it_always_answers(again):
    artifact, said = again(Abstain(max_error=0.001))
    assert artifact.calibration.threshold is artifact.score.answered is None
    assert "269 validation images do not prove it" in " ".join(said)


def test_unknown_images_are_measured_at_a_coverage_of_95_percent(again, tiny_images):
    artifact, _ = again(Abstain(unknown_from=str(tiny_images)))
    assert artifact.calibration.coverage == 0.95
    assert artifact.score.unknown.images == 60
    assert 0 <= artifact.score.unknown.rejected <= 1


def test_without_validation_images_the_temperature_is_1(again):
    dataset = read_dataset("digits")
    empty = dataclasses.replace(dataset, val=Split(sources=dataset.val.sources[:0], labels=dataset.val.labels[:0]))
    artifact, said = again(Abstain(coverage=0.9), empty)
    assert effnet.load(artifact.folder).config.temperature == 1
    assert "There were no validation images to calibrate on." in " ".join(said)
    score = artifact.score
    assert score.sureness == score.uncalibrated
    probabilities, indices = predict_split(effnet.load(artifact.folder), dataset.test)
    assert score.sureness.ece == expected_calibration_error(probabilities, dataset.test.labels[indices])


def test_a_file_over_its_latency_is_measured_again_for_as_long_as_a_neighbour_disturbs(again):
    paces, calm = [], iter([0.5, 0.4, 0.6])

    def time_disturbed(path, *, pace_ms, **options):
        """Take 3 ms, except in a moment that is only met by a measurement that waits for a pace of 0.46 ms."""
        paces.append(pace_ms)
        return dataclasses.replace(measure_briefly(path, **options), p50_ms=1 if pace_ms < 0.47 else 3)

    pauses = []
    patient = Stopwatch(once=time_disturbed, quiet_pace=lambda threads: next(calm), pause=pauses.append)
    artifact, _ = again(Abstain(), procedure=Procedure(stopwatch=patient), max_latency_ms=2)
    assert pauses == [1, 2]
    assert paces == pytest.approx([math.inf, DISTURBED * 0.5, DISTURBED * 0.4])
    assert artifact.honoured
    assert [measured["latency_ms"] for measured in artifact.measurements] == [3, 3, 1]


def test_a_disk_that_fills_up_while_a_bundle_is_published_is_told_with_the_bundles_own_file(small_bundle, tmp_path):
    made = small_bundle / "run" / "attempt-1" / "bundle"
    artifact = SimpleNamespace(folder=made, deployed=SimpleNamespace(format=find_format("onnx")))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as failed:
            publish(artifact, {}, read_dataset("digits"), tmp_path, draws=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.value.filename == str(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_misclassified_photographs_are_decoded_one_at_a_time_and_reduced_like_in_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "LARGE_PIXELS", 250_000)
    Image.new("RGB", (800, 640), "green").save(tmp_path / "large.jpg")
    dataset = SimpleNamespace(test=Split(sources=[str(tmp_path / "large.jpg")] * 2, labels=np.zeros(2, np.int64)))
    artifact = SimpleNamespace(
        deployed=SimpleNamespace(config=SimpleNamespace(preprocess=Preprocess(resolution=16))),
        score=SimpleNamespace(mistakes=[SimpleNamespace(index=0), SimpleNamespace(index=1)]),
    )
    images = _images(artifact, dataset)
    assert next(images).shape == (80, 100, 3)
    (tmp_path / "large.jpg").unlink()
    with pytest.raises(ImageError):
        next(images)
