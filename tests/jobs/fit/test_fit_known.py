"""fit.unknown_score: the score is chosen on the final network, is in its files, its report and its budget."""

import dataclasses
import json

import numpy as np
import pytest
from procedures import fit

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.names import ONNX
from effnet.bundle.weights import load_state
from effnet.data.datasets import read_dataset
from effnet.errors import InputError
from effnet.jobs.fit import attempt as attempt_module
from effnet.measurement.known.scores import score_values
from effnet.report.model import load_report
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.tasks.known import TITLES

KNN = {"unknown_score": "knn", "coverage": 0.9}


@pytest.fixture(scope="module")
def fitted(stripes, small_bundle, tmp_path_factory):
    """A head with kNN."""
    root = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(root / "cache"))
        return fit(stripes, weights=small_bundle, strategy="head", out=root / "out", **KNN)


def test_the_bundle_answers_the_share_of_validation_images(fitted, stripes):
    model, val = effnet.load(fitted.folder), read_dataset(str(stripes)).val
    assert model.config.known.method == "knn"
    values = model.scores(np.stack([model.prepare(source) for source in val.sources]))
    assert (values >= model.config.known.threshold).mean() == pytest.approx(0.9, abs=0.04)
    answers = model.predict(val.sources)
    assert [answer.known for answer in answers] == (values >= model.config.known.threshold).tolist()


def test_its_score_is_of_the_features_of_its_own_weights(fitted, stripes):
    config, state = read_config(fitted.folder), load_state(fitted.folder)
    model = effnet.load(fitted.folder)
    effnet.export(fitted.folder, to=["onnx"], features=True)
    pixels = np.stack([model.prepare(source) for source in read_dataset(str(stripes)).test.sources[:8]])
    features = effnet.load(fitted.folder).features(pixels)
    wanted = score_values(config.known, features, state["classifier.weight"], state["classifier.bias"])
    np.testing.assert_allclose(effnet.load(fitted.folder).scores(pixels), wanted, atol=1e-4)


def test_the_report_has_the_choice_the_estimates_and_what_they_mean(fitted):
    report = load_report(fitted.folder)
    assert report.known == fitted.report.known
    assert [estimate.method for estimate in report.known.estimates] == list(TITLES)
    assert all(0 < estimate.auroc <= 1 for estimate in report.known.estimates)
    assert report.known.size_bytes > 0
    assert report.test.answered.score == TITLES["knn"]
    page, card = ((fitted.folder / name).read_text() for name in ("report.html", "README.md"))
    for text in (page, card):
        assert "as requested: AUROC" in text
        assert "The score is an output of the model file" in text
    assert "Each class was left out of the training images in turn" in page


def test_the_budget_counts_the_score(fitted, tmp_path):
    spec = read_config(fitted.folder).arch
    known = read_config(fitted.folder).known
    measured = fitted.report.measured
    assert measured.macs == effnet.cost(spec).macs + known.arrays["bank"].size
    assert measured.params == effnet.cost(spec).params + sum(array.size for array in known.arrays.values())
    plain = tmp_path / ONNX
    export_onnx(tmp_path, dataclasses.replace(read_config(fitted.folder), known=None), load_state(fitted.folder))
    added = (fitted.folder / ONNX).stat().st_size - plain.stat().st_size
    assert fitted.report.known.size_bytes == added > 2 * known.arrays["bank"].size


def test_a_fit_that_is_not_asked_for_a_score_has_none(small_bundle):
    assert read_config(small_bundle).known is None
    assert "known" not in json.loads((small_bundle / "config.json").read_text())
    assert load_report(small_bundle).known is None


def test_a_requested_score_over_the_budget_is_refused(stripes, small_bundle, tmp_path):
    macs = effnet.cost(read_config(small_bundle).arch).macs
    with pytest.raises(InputError, match=r"unknown_score must meet the budget; with mahalanobis, MACs .* is over"):
        fit(
            stripes, weights=small_bundle, strategy="head", max_macs=macs, out=tmp_path / "out",
            unknown_score="mahalanobis", coverage=0.9,
        )  # fmt: skip


def test_a_score_whose_file_misses_the_budget_is_taken_out_again(stripes, small_bundle, tmp_path, monkeypatch):
    real = attempt_module.figures_of

    def figures_of(deployed, *rest, **options):
        timing, measured, *others = real(deployed, *rest, **options)
        return timing, measured | {"latency_ms": 1e6 if deployed.config.known else 1.0}, *others

    monkeypatch.setattr(attempt_module, "figures_of", figures_of)
    out = tmp_path / "out"
    result = fit(stripes, weights=small_bundle, strategy="head", out=out, max_latency_ms=1000, **KNN)
    config = read_config(result.folder)
    assert config.known is None
    assert result.report.known.method == "probability"
    assert "latency" in result.report.known.sentence
    export_onnx(tmp_path, config, load_state(result.folder))
    assert (tmp_path / ONNX).read_bytes() == (result.folder / ONNX).read_bytes()
    assert not effnet.load(result.folder).scored


def test_two_classes_keep_the_largest_probability_and_say_why(stripes, small_bundle, tmp_path):
    data = tmp_path / "two"
    data.mkdir()
    for name in ("rows", "columns"):
        (data / name).symlink_to(stripes / name)
    result = fit(data, weights=small_bundle, strategy="head", out=tmp_path / "out", unknown_score="auto", coverage=0.9)
    assert read_config(result.folder).known is None
    assert "at least 3 classes of two training images, and there are 2" in result.report.known.sentence
    assert result.report.known.estimates == ()


def test_a_runtime_that_cannot_return_it_falls_back_and_says_so(stripes, small_bundle, tmp_path):
    pytest.importorskip("ai_edge_litert")
    result = fit(stripes, weights=small_bundle, strategy="head", runtime="litert", out=tmp_path / "out", **KNN)
    assert result.report.known.fallback.startswith("Files of LiteRT cannot return the score, those of ONNX Runtime can")
    assert result.report.test.answered.score == ""
    assert "Files of LiteRT cannot return the score" in (result.folder / "report.html").read_text()
    model = effnet.load(result.folder)
    assert not model.scored
    assert model.chosen_threshold() == model.config.threshold > 0
    assert effnet.load(result.folder, format="onnx").scored
