"""Fits from pretrained weights: their trained and frozen parts, and resuming a killed one."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import procedures
import pytest
import safetensors.numpy
from devices import timing
from PIL import Image
from procedures import made_up

import effnet
from effnet.bundle.names import RECIPE
from effnet.data.datasets import read_dataset
from effnet.errors import BudgetError, BundleError, InputError, WeightsError
from effnet.jobs.fit.transfer.length import tuned_recipe
from effnet.nn.network import build
from effnet.planner.events import Counted, Said
from effnet.planner.timetable import Pace
from effnet.report.provenance import method_sentence
from effnet.training.transfer.head import scored_head

pytestmark = pytest.mark.usefixtures("one_thread")
fit = functools.partial(procedures.fit, procedure=procedures.UNTIMED)

CLASSIFIER = {"classifier.weight", "classifier.bias"}


def load(folder, name="model.safetensors"):
    """Return a network's weights; head.safetensors also holds the head's validation logits."""
    arrays = safetensors.numpy.load_file(Path(folder) / name)
    return {key: array for key, array in arrays.items() if not key.startswith("validation.")}


def same(one, other):
    assert one.keys() == other.keys()
    return {name for name in one if np.array_equal(one[name], other[name])}


@pytest.fixture(scope="module")
def head(stripes, small_bundle, tmp_path_factory):
    """The stripes, fitted by a head on the features of a network for digits."""
    root = tmp_path_factory.mktemp("head")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(root / "cache"))
        return fit(stripes, weights=small_bundle, strategy="head", coverage=0.8, out=root / "out")


@pytest.fixture(scope="module")
def tuned(stripes, small_bundle, tmp_path_factory):
    """The same with the whole network fine-tuned, as auto decides for it; every feature is recomputed."""
    root = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(root / "cache"))
        return fit(stripes, weights=small_bundle, epochs=4, out=root / "out")


def test_a_head_leaves_the_backbone_as_it_was_to_the_last_bit(head, small_bundle):
    before, after = load(small_bundle), load(head.folder)
    assert (
        same(
            {k: v for k, v in before.items() if k not in CLASSIFIER},
            {k: v for k, v in after.items() if k not in CLASSIFIER},
        )
        == before.keys() - CLASSIFIER
    )
    assert after["classifier.weight"].shape == (3, before["classifier.weight"].shape[1])
    training = head.report.to_dict()["training"]
    assert (training["method"], training["epochs"], training["recipe"]) == ("head", [], None)


def test_a_head_gives_a_bundle_that_predicts_as_it_was_scored(head, stripes):
    model = effnet.load(head.folder)
    score = effnet.evaluate(model, read_dataset(str(stripes)).test)
    assert score.accuracy == head.report.test.accuracy > 0.6
    assert model.config.class_names == ("columns", "plain", "rows")
    assert model.config.threshold == head.report.calibration.threshold > 0
    assert head.report.test.answered.coverage > 0.5
    (found,) = model.predict([next(stripes.glob("rows/*.png"))])
    assert set(found.labels) == set(model.config.class_names)


def test_the_features_give_the_accuracy_of_the_whole_network(head, stripes):
    """A head trained on features of the folded ONNX backbone agrees with the module with its own BatchNorm."""
    val = read_dataset(str(stripes)).val
    found = effnet.evaluate(effnet.load(head.folder), val)
    facts = head.report.to_dict()["training"]["head"]
    assert found.accuracy == facts["val_figure"]
    assert found.uncalibrated.nll == pytest.approx(facts["val_loss"], rel=1e-3)
    assert (facts["images"], facts["views"], facts["features"]) == (159, 1, 159 + len(val))


def test_the_report_says_whose_the_weights_are(head, small_bundle):
    facts = head.report.to_dict()["training"]["head"]
    assert head.report.training.weights == facts["weights"] == str(small_bundle)
    assert (facts["name"], facts["licence"], facts["hub"], facts["top1"]) == ("bundle", "", "", None)
    assert {row.weights for row in head.report.candidates} == {str(small_bundle)}


def test_fine_tuning_changes_the_backbone_and_does_better_than_its_head(tuned, small_bundle):
    training = tuned.report.to_dict()["training"]
    assert training["method"] == "finetune"
    assert len(training["epochs"]) == 4
    best = training["epochs"][training["best_epoch"] - 1]
    assert best["val_accuracy"] > training["head"]["val_figure"] < 0.95
    before, head, after = load(small_bundle), load(tuned.folder, "run/attempt-1/head.safetensors"), load(tuned.folder)
    assert same(before, head) >= before.keys() - CLASSIFIER
    changed = head.keys() - same(head, after)
    assert {name for name in changed if name.endswith("conv.weight")} == {n for n in head if n.endswith("conv.weight")}
    # So few images would only blur the statistics.
    assert not any("running" in name for name in changed)
    assert training["recipe"]["train"]["frozen_norms"] is True


def test_the_later_stages_learn_from_kept_feature_maps_first(stripes, small_bundle, tmp_path):
    events = []
    kept = {"kept.views": 2, "kept.stages": 2, "kept.epochs": 3}
    found = fit(
        stripes,
        weights=small_bundle,
        strategy="finetune",
        epochs=1,
        settings=kept,
        out=tmp_path / "out",
        listener=events.append,
    )
    texts = [event.text for event in events if isinstance(event, Said)]
    first, then = (next(i for i, text in enumerate(texts) if words in text) for words in ("kept feature maps", "whole"))
    assert first < then
    (own,) = found.folder.glob("run/**/later_stages")
    assert len((own / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    assert not (own / "maps").exists(), "they are large"
    before, after = safetensors.numpy.load_file(small_bundle / "model.safetensors"), load(own, "best.safetensors")
    early = {name for name in before if name.startswith(("stem.", "stages.0.", "stages.1."))}
    assert not early & set(after)


def test_fine_tuning_that_never_helps_leaves_the_head(tiny_images, small_bundle, tmp_path):
    report = fit(
        tiny_images, weights=small_bundle, strategy="finetune", epochs=1, out=tmp_path / "out"
    ).report.to_dict()
    training = report["training"]
    assert (training["method"], training["best_epoch"], training["head"]["val_figure"]) == ("finetune", 0, 1.0)
    head, after = load(tmp_path / "out", "run/attempt-1/head.safetensors"), load(tmp_path / "out")
    assert same(head, after) == head.keys()


def test_auto_stops_after_a_head_that_is_good_enough(tiny_images, small_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.jobs.fit.transfer.finetune.ENOUGH_A_CLASS", 1)
    report = fit(tiny_images, weights=small_bundle, out=tmp_path / "out").report.to_dict()
    assert report["training"]["method"] == "head"
    assert report["training"]["head"]["val_figure"] >= 0.95


def test_auto_stops_after_a_head_that_few_images_could_only_spoil(stripes, small_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.jobs.fit.transfer.finetune.ENOUGH_A_CLASS", 54)
    report = fit(stripes, weights=small_bundle, out=tmp_path / "out").report.to_dict()
    assert report["training"]["method"] == "head"
    assert report["training"]["head"]["val_figure"] < 0.95


def test_features_are_computed_once(head, stripes, small_bundle, tmp_path, monkeypatch):
    cache = head.folder.parent / "cache"
    monkeypatch.setenv("EFFNET_CACHE", str(cache))
    again = fit(stripes, weights=small_bundle, strategy="head", out=tmp_path / "out")
    assert [fit.report.to_dict()["training"]["head"]["computed"] for fit in (head, again)] == [192, 0]
    assert [path.name for path in cache.iterdir()] == ["features.sqlite"]
    name = "model.safetensors"
    assert (again.folder / name).read_bytes() == (head.folder / name).read_bytes()


def test_a_cache_that_cannot_be_made_costs_time_only(head, stripes, small_bundle, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "file" / "cache"))
    report = fit(stripes, weights=small_bundle, strategy="head", out=tmp_path / "out").report.to_dict()
    assert report["training"]["head"]["computed"] == 192
    assert load(tmp_path / "out").keys() == same(load(tmp_path / "out"), load(head.folder))


def useless_head(features, labels, *, num_classes, val_features, val_labels, balance):
    """A solver whose head is no better than chance."""
    shape = (num_classes, features.shape[1])
    return scored_head(np.zeros(shape), np.arange(num_classes) - 9.0, val_features, val_labels, penalty=1.0)


def test_a_bundle_that_knows_the_classes_keeps_its_own_head_where_no_better_one_is_found(
    tuned, stripes, tmp_path, monkeypatch
):
    monkeypatch.setattr("effnet.training.classification.learning.train_head", useless_head)
    events = []
    found = fit(stripes, weights=tuned.folder, strategy="head", out=tmp_path / "out", listener=events.append)
    assert same(load(tuned.folder), load(found.folder)) >= CLASSIFIER
    head = found.report.training.head
    best = tuned.report.training.epochs[tuned.report.training.best_epoch - 1]
    assert head.val_figure == pytest.approx(best.figures["val_accuracy"])
    assert any("Its own head on frozen features" in event.text for event in events if isinstance(event, Said))
    assert "own head was better" in (found.folder / "report.html").read_text(encoding="utf-8")


def test_a_head_for_other_classes_is_no_bundles_own(small_bundle, stripes, tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.training.classification.learning.train_head", useless_head)
    found = fit(stripes, weights=small_bundle, strategy="head", out=tmp_path / "out")
    assert found.report.to_dict()["training"]["head"]["penalty"] == 1.0


def test_a_file_of_weights_is_adapted_to_grey_images_and_to_the_budget(lite0_file, photos, tmp_path):
    grey = tmp_path / "grey"
    for path in photos.glob("*/0*.png"):
        (grey / path.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.getchannel(0).save(grey / path.parent.name / path.name)
    result = fit(grey, weights=lite0_file, strategy="head", max_macs=35e6, out=tmp_path / "out")
    config = effnet.load(result.folder).config
    assert (config.arch.in_channels, config.arch.num_classes, config.preprocess.resolution) == (1, 3, 64)
    assert result.report.network.name == "tf_efficientnet_lite0 at 64"
    assert result.report.measured.macs <= 0.9 * 35e6
    assert result.report.training.head.views == 3
    given, after = safetensors.numpy.load_file(lite0_file), load(result.folder)
    assert np.array_equal(after["stages.1.0.expand.conv.weight"], given["blocks.1.0.conv_pw.weight"])
    assert after["stem.conv.weight"].shape == (32, 1, 3, 3)


# Fits that kill themselves at a given stage, each in a process of its own; forks spare them the imports.
_KILLED = """
import os, signal, sys
import onnx, onnxruntime, scipy.optimize, sklearn.linear_model, torch
import effnet, effnet.jobs.fit.api, effnet.nn.kernels.library
from effnet.jobs.procedure import Procedure
from effnet.planner.events import Counted, Said
from effnet.progress import Step

torch.set_num_threads(1)
effnet.nn.kernels.library.find_kernels()  # compiled once, not in every cache
root, data = sys.argv[1:]
STAGES = {
    "features": lambda event: isinstance(event, Counted) and event.total < 100,  # those of validation
    "head": lambda event: isinstance(event, Said) and "Fine-tuning" in event.text,
    "step": lambda event: isinstance(event, Step) and event.step == 13,  # within the third epoch
}
for name, reached in STAGES.items():
    if os.fork() == 0:
        os.environ["EFFNET_CACHE"] = f"{root}/{name}/cache"
        effnet.fit(
            data, weights=f"{root}/{name}/bundle", epochs=4, out=f"{root}/{name}/out",
            listener=lambda event: os.kill(os.getpid(), signal.SIGKILL) if reached(event) else None,
            procedure=Procedure(checkpoint_seconds=0.0),
        )
        os._exit(1)
for name in STAGES:
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL
"""
STAGES = ("features", "head", "step")


@pytest.fixture(scope="module")
def killed(stripes, small_bundle, tmp_path_factory):
    """Folders of fits that were killed at STAGES, each with its own copy of the weights and its own cache."""
    root = tmp_path_factory.mktemp("killed")
    for name in STAGES:
        shutil.copytree(small_bundle, root / name / "bundle", ignore=shutil.ignore_patterns("run"))
    subprocess.run([sys.executable, "-c", _KILLED, root, stripes], check=True, timeout=300)
    return root


@pytest.mark.elsewhere
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_fit_goes_on_to_the_same_weights(stage, killed, tuned, stripes, monkeypatch):
    folder = killed / stage
    assert [path.name for path in (folder / "out").iterdir()] == ["run"]
    if stage != "features":
        shutil.rmtree(folder / "bundle")  # with a head, the weights are no longer needed
    monkeypatch.setenv("EFFNET_CACHE", str(folder / "cache"))
    events = []
    report = fit(
        stripes, weights=folder / "bundle", epochs=4, out=folder / "out", resume=True, listener=events.append
    ).report.to_dict()
    # The features of the training images were saved before those of validation were interrupted.
    assert report["training"]["head"]["computed"] == (33 if stage == "features" else 192)
    for name in ("model.safetensors", "model.onnx"):
        assert (folder / "out" / name).read_bytes() == (tuned.folder / name).read_bytes(), name
    counted = [event.total for event in events if isinstance(event, Counted)]
    said = " ".join(event.text for event in events if isinstance(event, Said))
    assert bool(counted) == ("Training a head" in said) == (stage == "features")
    assert "Fine-tuning the whole network for 4 epochs" in said


@pytest.mark.elsewhere
def test_a_fit_whose_weights_have_gone_before_its_head_was_trained_says_so(killed, stripes, tmp_path):
    shutil.copytree(killed / "features" / "out" / "run", tmp_path / "out" / "run")
    for path in (tmp_path / "out" / "run").glob("*/head.safetensors"):
        path.unlink()
    plan = tmp_path / "out" / "run" / "plan.json"
    gone = str(tmp_path / "gone")
    plan.write_text(plan.read_text().replace(str(killed / "features" / "bundle"), gone))
    with pytest.raises(WeightsError, match=rf"there must be a file of weights at {gone}; none is there"):
        fit(stripes, weights=gone, epochs=4, out=tmp_path / "out", resume=True)


@pytest.mark.elsewhere
def test_a_damaged_head_is_named(killed, stripes, tmp_path):
    out = shutil.copytree(killed / "head" / "out", tmp_path / "out")
    (out / "run" / "attempt-1" / "head.safetensors").write_bytes(b"?")
    with pytest.raises(BundleError, match=r"head\.safetensors cannot be resumed: .*; remove the folder to start again"):
        fit(stripes, weights=killed / "head" / "bundle", epochs=4, out=out, resume=True)


def test_minutes_bound_head_and_fine_tuning_together(stripes, small_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.jobs.fit.transfer.length.train_speed", lambda spec: 9.0)
    monkeypatch.setattr("effnet.jobs.fit.time_left.machine_pace", lambda read, **_: Pace(measure=0.1))
    options = {"minutes": 1, "out": tmp_path / "out", "procedure": made_up(clock=lambda: 0.0)}
    options["settings"] = {"kept.views": 0}
    report = fit(stripes, weights=small_bundle, strategy="finetune", **options).report.to_dict()
    recipe = json.loads((tmp_path / "out" / "run" / "attempt-1" / "recipe.json").read_text())
    assert recipe == report["training"]["recipe"]
    # 9 images per second in 0.8 of nearly a minute, 159 per epoch.
    assert recipe["train"]["epochs"] == len(report["training"]["epochs"]) == 2


def test_the_later_stages_are_trained_alone_where_the_minutes_allow_no_more(
    stripes, small_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr("effnet.jobs.fit.transfer.length.train_speed", lambda spec: 9.0)
    monkeypatch.setattr("effnet.jobs.fit.transfer.later_stages.train_speed", lambda spec, *, kept_stages: 36.0)
    monkeypatch.setattr("effnet.jobs.fit.time_left.machine_pace", lambda read, **_: Pace(measure=0.1))
    options = {"minutes": 1, "out": tmp_path / "out", "procedure": made_up(clock=lambda: 0.0)}
    found = fit(stripes, weights=small_bundle, strategy="finetune", **options).report
    later = found.training.later
    # Of nearly a minute, the maps of four views take 4 x 159 x (1/9 - 1/36) / 3 = 18 s, an epoch on them 4.4.
    assert (later.views, later.epochs) == (4, 9)
    assert len(found.training.epochs) == 9
    assert found.training.recipe["kept"]["alone"]
    expected = f"then what follows stage {later.stages}, on kept feature maps of 4 views of each image, for 9 epochs"
    assert expected in method_sentence(found)


def test_a_file_that_misses_its_budget_gives_way_to_a_lower_resolution(lite0_file, photos, tmp_path):
    """Each attempt has its own head, on features at its own resolution."""
    device = made_up(
        lambda path: timing(2.0 if "attempt-1" in path.parts else 0.5),
        candidate=lambda found: timing(found.spec.resolution / 100),
    )
    options = {"weights": lite0_file, "procedure": device}
    report = fit(photos, strategy="head", max_latency_ms=1.1, out=tmp_path / "out", **options).report.to_dict()
    assert [row["name"] for row in report["attempts"]] == ["tf_efficientnet_lite0 at 96", "tf_efficientnet_lite0 at 80"]
    assert effnet.load(tmp_path / "out").config.preprocess.resolution == 80
    with pytest.raises(BudgetError, match="no resolution of"):
        fit(photos, max_latency_ms=0.1, out=tmp_path / "other", **options)
    assert not (tmp_path / "other").exists()


def test_a_head_takes_no_epochs(tmp_path, tiny_images):
    with pytest.raises(InputError, match=r"--epochs has no effect with fit\.strategy=head"):
        fit(tiny_images, weights="auto", strategy="head", epochs=3, out=tmp_path / "out")


def test_a_heads_temperature_is_that_of_its_exported_file(head, stripes):
    """The temperature is fitted on logits from the features; the file must agree with them."""
    from effnet.measurement.answers import predict_split
    from effnet.measurement.classification.calibration import apply_temperature, fit_temperature

    model, val = effnet.load(head.folder), effnet.read_dataset(stripes).val
    probabilities, indices = predict_split(model, val)
    raw = apply_temperature(probabilities, 1 / model.config.temperature)
    assert fit_temperature(np.log(raw), val.labels[indices]) == pytest.approx(model.config.temperature, rel=1e-2)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"train": {"lr": NaN}}'])
def test_a_kept_recipe_that_was_damaged_is_named(tmp_path, text):
    (tmp_path / RECIPE).write_text(text)
    network = build(effnet.scale(effnet.get_spec("b0", num_classes=2), phi=-20))
    with pytest.raises(InputError, match=re.escape(str(tmp_path / RECIPE))) as refused:
        tuned_recipe(None, None, network.spec, {}, epochs=None, limit=None, settings={}, spent=0.0, folder=tmp_path)
    assert "\n" not in str(refused.value)
