"""Heads that read the pooled outputs of several stages: chosen on validation, within the budget, kept by a resume."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import procedures
import pytest
from strategies import build_trained

import effnet
from effnet.arch.scale import scale
from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.data.datasets import read_dataset
from effnet.data.preprocess import Preprocess
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.transfer.pooled import pooled_stages, with_pooled
from effnet.planner.events import Said
from effnet.planner.space import only_candidate
from effnet.report.provenance import method_sentence, origin_rows

pytestmark = pytest.mark.usefixtures("one_thread")
fit = functools.partial(procedures.fit, procedure=procedures.UNTIMED, strategy="head")
LITE0 = effnet.get_spec("lite0", num_classes=10)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A bundle of a small random network with all strides, for grey images of 32 x 32 pixels."""
    spec = scale(effnet.get_spec("lite0", num_classes=4, in_channels=1), phi=-14, resolution=32)
    config = ModelConfig(
        arch=spec, preprocess=Preprocess(resolution=32, mean=(0.5,), std=(0.3,)), class_names=("a", "b", "c", "d")
    )
    folder = tmp_path_factory.mktemp("weights") / "bundle"
    save_bundle(folder, config, state_arrays(build_trained(spec, resolution=32)))
    return folder


def job(**options):
    return job_of(FitConfig("unread", epochs=1, **options))


def test_the_later_stages_are_those_behind_a_stride_of_8():
    wide = with_pooled(LITE0)
    assert wide.pooled == (3, 4, 5, 6)
    assert wide.feature_channels == 1280 + 80 + 112 + 192 + 320
    assert with_pooled(dataclasses.replace(LITE0, head_channels=0)).pooled == (3, 4, 5)


def test_more_features_must_keep_the_budget():
    candidate = only_candidate(LITE0)
    assert pooled_stages(LITE0, candidate, job()) == (3, 4, 5, 6)
    more = effnet.cost(with_pooled(LITE0))
    for name in ("params", "macs"):
        enough = getattr(more, name)
        assert pooled_stages(LITE0, candidate, job(**{f"max_{name}": enough})) == (3, 4, 5, 6)
        assert pooled_stages(LITE0, candidate, job(**{f"max_{name}": enough - 1})) == ()
    timed = dataclasses.replace(candidate, latency_ms=5.0)
    assert pooled_stages(LITE0, timed, job(max_latency_ms=5.4)) == (3, 4, 5, 6)
    assert pooled_stages(LITE0, timed, job(max_latency_ms=5.2)) == ()
    assert pooled_stages(LITE0, candidate, job(strategy="finetune", weights="lite0.pth")) == ()


def test_what_is_not_possible_is_said_if_it_is_requested():
    said = []
    asked = dataclasses.replace(job(head_features="all", max_params=effnet.cost(LITE0).params))
    asked = dataclasses.replace(asked, config=dataclasses.replace(asked.config, listener=said.append))
    assert pooled_stages(LITE0, only_candidate(LITE0), asked) == ()
    assert [event.text for event in said if isinstance(event, Said)] == [
        "The head reads the last feature map alone: with the other stages parameters would miss the budget"
    ]
    changed = dataclasses.replace(only_candidate(LITE0), whole=LITE0, kept=0.5)
    assert pooled_stages(LITE0, changed, job()) == ()
    assert pooled_stages(LITE0, only_candidate(LITE0), job(head_features="last")) == ()


def test_a_head_on_all_stages_is_deployed_as_it_was_fitted(stripes, weights, tmp_path):
    found = fit(stripes, weights=weights, head_features="all", out=tmp_path / "out")
    head = found.report.training.head
    config = read_config(found.folder)
    assert config.arch.pooled == tuple(head.pooled) == (3, 4, 5, 6)
    val = read_dataset(str(stripes)).val
    assert effnet.evaluate(effnet.load(found.folder), val).accuracy == head.val_figure
    assert found.report.measured.params == effnet.cost(config.arch).params
    (row,) = [text for name, text in origin_rows(found.report) if name == "Head: features"]
    assert row == "the last feature map and stages 4, 5, 6 and 7, pooled"


def test_auto_takes_what_is_better_on_the_validation_images(stripes, weights, tmp_path, monkeypatch):
    from effnet.jobs.fit.transfer import head as module

    figures = {}
    for reads in ("last", "all"):
        report = fit(stripes, weights=weights, head_features=reads, out=tmp_path / reads).report
        figures[reads] = (report.training.head.val_figure, -report.training.head.val_loss)
    better = not all(np.less(figures["all"], figures["last"]))
    found = fit(stripes, weights=weights, out=tmp_path / "auto").report.training.head
    assert (found.val_figure, -found.val_loss) == figures["all" if better else "last"]
    assert bool(found.pooled) == better
    assert found.last_figure == (figures["last"][0] if better else None)
    # The other outcome, with the figures of the two heads exchanged.
    fitted, order = module.learning_of, []

    def exchanged(dataset):
        learning = fitted(dataset)

        def fit_head(features, *args, **kwargs):
            result = learning.fit_head(features, *args, **kwargs)
            order.append(features.shape[1])
            good = (len(order) == 2) != better
            return dataclasses.replace(result, val_figure=0.9 if good else 0.5, val_loss=0.2 if good else 2.0)

        return type("Exchanged", (), {"fit_head": staticmethod(fit_head)})

    monkeypatch.setattr(module, "learning_of", exchanged)
    other = fit(stripes, weights=weights, out=tmp_path / "other").report.training.head
    assert bool(other.pooled) != better
    assert order[0] < order[1]


def test_features_that_would_fill_the_memory_are_those_of_the_last_map(stripes, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.jobs.fit.transfer.head._MOST_FEATURES", 1000)
    found = fit(stripes, weights=weights, out=tmp_path / "out")
    assert read_config(found.folder).arch.pooled == ()


def test_fine_tuning_goes_on_with_all_stages(stripes, weights, tmp_path):
    kept = {"kept.views": 2, "kept.stages": 3, "kept.epochs": 1}
    found = fit(
        stripes, weights=weights, head_features="all", strategy="finetune", epochs=1, settings=kept,
        out=tmp_path / "out",
    )  # fmt: skip
    assert read_config(found.folder).arch.pooled == (3, 4, 5, 6)
    again = fit(
        stripes, weights=weights, head_features="all", strategy="finetune", epochs=2, settings=kept,
        out=tmp_path / "out", resume=True,
    )  # fmt: skip
    assert read_config(again.folder).arch.pooled == (3, 4, 5, 6)
    assert len(again.report.training.epochs) == 2


def test_by_auto_fine_tuning_starts_from_the_last_feature_map(stripes, weights, tmp_path):
    found = fit(stripes, weights=weights, strategy="finetune", epochs=1, out=tmp_path / "out")
    assert read_config(found.folder).arch.pooled == ()
    assert found.report.training.head.pooled == []


@pytest.mark.parametrize("kept", [{}, {"kept.views": 2, "kept.stages": 3, "kept.epochs": 1}])
def test_the_head_on_all_stages_stays_if_fine_tuning_is_no_better(stripes, weights, tmp_path, monkeypatch, kept):
    monkeypatch.setattr("effnet.jobs.fit.transfer.finetune._why_no_more", lambda *args: "")
    monkeypatch.setattr("effnet.jobs.fit.transfer.head._heads", both_heads)
    settings = {"train.lr": 1e-30, **kept}
    found = fit(stripes, weights=weights, strategy="auto", epochs=1, settings=settings, out=tmp_path / "out")
    training = found.report.training
    assert (training.method, training.best_epoch, len(training.epochs)) == ("finetune", 0, 1)
    assert read_config(found.folder).arch.pooled == tuple(training.head.pooled) == (3, 4, 5, 6)
    val = read_dataset(str(stripes)).val
    assert effnet.evaluate(effnet.load(found.folder), val).accuracy == training.head.val_figure
    text = method_sentence(found.report)
    assert "none was better than the head alone, which was kept" in text
    # Fine-tuning goes on from the head on the last feature map.
    again = fit(
        stripes, weights=weights, strategy="auto", epochs=2, settings=settings, out=tmp_path / "out", resume=True
    )
    assert read_config(again.folder).arch.pooled == (3, 4, 5, 6)
    assert len(again.report.training.epochs) == 2


def both_heads(spec, wide, head_of, reads, **others):
    """Return both heads, whichever is better."""
    return [(head_of(each), {"pooled": list(each.pooled)}) for each in (spec, wide)]


def test_pruning_a_network_that_reads_all_stages_keeps_its_features(stripes, weights, tmp_path):
    found = fit(stripes, weights=weights, head_features="all", out=tmp_path / "out")
    pruned = effnet.prune(found.folder, str(stripes), macs=0.6, steps=1, epochs=1, out=tmp_path / "pruned")
    arch = read_config(pruned.folder).arch
    assert arch.pooled == (3, 4, 5, 6)
    assert effnet.cost(arch).macs < 0.7 * effnet.cost(read_config(found.folder).arch).macs
