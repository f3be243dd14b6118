"""The whole job on digits: a small bundle becomes a smaller, ordinary bundle."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from bundles import assert_files_are_known
from devices import timing
from PIL import Image
from procedures import UNTIMED, made_up
from renorm import renormed
from strategies import build_trained

import effnet
from effnet import cost, get_spec, load, load_module
from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale, with_total_stride
from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import load_arrays_, load_state, save_bundle, state_arrays
from effnet.compression.norm_statistics import rebased, right_answers
from effnet.data.datasets import read_dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import BudgetError, InputError
from effnet.jobs.prune import proof as prune_proof
from effnet.nn.network import build
from effnet.progress import EpochEnd, Noted
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.recorded import probe_images, recorded_answers
from effnet.training.loop import train
from effnet.training.recipe.schema import Augment, Loss, Recipe, Train
from effnet.weights.adapt import has_folded_norms

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"macs": 0.5, "steps": 2, "epochs": 2, "round_to": 4}
_A_CLASS = 50


def prune(*args, **options):
    """Prune, by default without measuring."""
    return effnet.prune(*args, **{"procedure": UNTIMED} | options)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with fifty images of each digit: the accuracy is not tested here."""
    root, train = tmp_path_factory.mktemp("data") / "digits", read_dataset("digits").train
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for number, place in enumerate(np.flatnonzero(train.labels == label)[:_A_CLASS]):
            Image.fromarray(train.sources[place][..., 0]).save(root / str(label) / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def bundle(digits, tmp_path_factory):
    """A tiny network, briefly trained on the digits."""
    folder = tmp_path_factory.mktemp("original")
    spec = with_total_stride(scale(get_spec("b0", num_classes=10, in_channels=1), phi=-14, resolution=16), 4)
    spec = dataclasses.replace(spec, stages=spec.stages[:3], lineage=Lineage(base="tiny"))
    preprocess = Preprocess(resolution=16, crop=1.0, mean=(0.3,), std=(0.35,))
    recipe = Recipe(train=Train(epochs=8, lr=1e-2), augment=Augment(view="none", flip=False), loss=Loss())
    dataset = read_dataset(digits, channels=1)
    found = train(build(spec, seed=0), dataset, recipe, preprocess, folder=folder / "run")
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=dataset.class_names, split_seed=0)
    state = state_arrays(found.model)
    save_bundle(folder / "bundle", config, state)
    export_onnx(folder / "bundle", config, state)
    return folder / "bundle"


@pytest.fixture(scope="module")
def pruned(bundle, digits, tmp_path_factory):
    """A pruned bundle, the events of its making, and the files that were measured in their order."""
    events, paths = [], []

    def measure(path):
        paths.append(path)
        return timing(2.0 if path.is_relative_to(bundle) else 1.0)

    out, device = tmp_path_factory.mktemp("pruned") / "out", made_up(measure)
    found = prune(bundle, digits, out=out, **QUICK, listener=events.append, procedure=device)
    return found, events, paths


def test_the_result_is_an_ordinary_bundle_that_predicts(pruned, bundle):
    found, _, _ = pruned
    report, config = found.report, read_config(found.folder)
    before = read_config(bundle)
    assert cost(config.arch).macs <= 0.5 * cost(before.arch).macs
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "README.md", "config.json", "model.onnx", "model.safetensors", "proof.json", "prune_report.json", "split.json",
    ]  # fmt: skip
    predictor = Predictor(found.folder)
    recorded = recorded_answers(found.folder, predictor.format)
    np.testing.assert_allclose(predictor.outputs(probe_images(predictor)), recorded, rtol=1e-5, atol=1e-6)
    assert_files_are_known(found.folder)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)
    probabilities = load(found.folder).probabilities(images)
    pixels = torch.from_numpy((images / 255 - 0.3) / 0.35).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = load_module(found.folder)(pixels)
    np.testing.assert_allclose(probabilities, (logits / config.temperature).softmax(1), atol=1e-4)
    assert report["check"]["max_difference"] < 1e-3
    assert report["before"]["test_accuracy"] > 0.6
    assert report["points_lost"] < 30
    assert json.loads((found.folder / "prune_report.json").read_text()) == json.loads(json.dumps(dict(report)))
    assert f"{report['after']['macs'] / 1e6:.1f}M" in (found.folder / "README.md").read_text()


def test_both_files_are_timed_in_turn(pruned, bundle):
    found, _, paths = pruned
    report, original = found.report, bundle / "model.onnx"
    # Forwards, then backwards, five times each.
    assert [path == original for path in paths] == [True, False, False, True] * 2 + [True, False]
    assert (report["before"]["latencies_ms"], report["after"]["latencies_ms"]) == ([2.0] * 5, [1.0] * 5)
    assert report["latency_ratio"] == report["after"]["latency_ms"] / report["before"]["latency_ms"] == 0.5


def test_progress_is_told(pruned):
    _, events, _ = pruned
    assert [event.text.partition(":")[0] for event in events if isinstance(event, Noted)][:2] == [
        "Step 1 of 2", "Step 2 of 2",
    ]  # fmt: skip
    assert sum(isinstance(event, EpochEnd) for event in events) == QUICK["epochs"]


@pytest.mark.elsewhere
def test_a_pruned_bundle_is_pruned_again_by_other_means_and_keeps_its_base_name(pruned, digits, tmp_path):
    found, _, _ = pruned
    options = QUICK | {"macs": 0.8, "steps": 1, "epochs": 1, "method": "bn", "drop_blocks": True}
    again = prune(found.folder, digits, out=tmp_path / "again", **options)
    arch = read_config(again.folder).arch
    assert cost(arch).macs <= 0.8 * cost(read_config(found.folder).arch).macs
    assert arch.name.count("pruned") == 1


@pytest.mark.elsewhere
def test_another_activation_alone_prunes_nothing_and_is_learned_from_the_original(bundle, digits, tmp_path):
    options, events = {"macs": 1.0, "activation": "relu6", "steps": 1, "epochs": 2}, []
    found = prune(bundle, digits, out=tmp_path / "out", **options, listener=events.append)
    before, after = read_config(bundle).arch, read_config(found.folder).arch
    assert after == dataclasses.replace(before, activation="relu6", se_gate="hard_sigmoid")
    assert after.name == f"{before.name} with relu6"
    # A network with replaced activations is almost at chance until it is re-fitted and retrained.
    swapped = build(after).eval()
    load_arrays_(swapped, load_state(bundle), where="the test")
    split = read_dataset(digits, channels=1).test
    untrained = right_answers(swapped, split, read_config(bundle)).mean()
    assert found.report["after"]["test_accuracy"] > untrained + 0.2
    assert "silu relu6" in next(event.text for event in events if isinstance(event, Noted))
    assert "made from the bundle bundle by relu6 as its activation" in (found.folder / "README.md").read_text()


@pytest.mark.elsewhere
def test_an_interrupted_run_goes_on_to_the_same_weights(pruned, bundle, digits, tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if isinstance(event, EpochEnd):
            raise Stop

    with pytest.raises(Stop):  # at the end of the first step's training
        prune(bundle, digits, out=tmp_path / "out", **QUICK, listener=stop)
    with pytest.raises(InputError, match="continue with --resume"):
        prune(bundle, digits, out=tmp_path / "out", **QUICK)
    with pytest.raises(InputError, match=r"must repeat the options .* --set prune.steps was 2, now 1"):
        prune(bundle, digits, out=tmp_path / "out", **QUICK | {"steps": 1}, resume=True)
    found = prune(bundle, digits, out=tmp_path / "out", **QUICK, resume=True)
    whole, resumed = load_state(pruned[0].folder), load_state(found.folder)
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.elsewhere
def test_a_run_that_was_killed_while_it_published_publishes_again(bundle, digits, tmp_path, monkeypatch):
    options = QUICK | {"steps": 1, "epochs": 1}

    class Killed(Exception):
        pass

    def replaced(source, target):
        if str(target) == str(tmp_path / "out" / "config.json"):
            raise Killed
        return os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(prune_proof.os, "replace", replaced)
        with pytest.raises(Killed):
            prune(bundle, digits, out=tmp_path / "out", **options)
    found = prune(bundle, digits, out=tmp_path / "out", **options, resume=True)
    assert load(found.folder).config.arch.name.startswith("tiny pruned to")
    assert not (tmp_path / "out" / "run").exists()
    again = prune(bundle, digits, out=tmp_path / "out", **options, resume=True)  # no work remains
    assert again.report == json.loads(json.dumps(dict(found.report)))
    with pytest.raises(InputError, match="must be a new or empty folder"):
        prune(bundle, digits, out=tmp_path / "out", **QUICK, resume=True)


def test_bad_input_is_refused_and_leaves_nothing(bundle, digits, tmp_path):
    for changes, words in (
        ({"macs": 1.5}, "must be above 0 and below 1"),
        ({"macs": 1.0}, "or 1 with another activation; got 1.0"),
        ({"method": "magic"}, "one of taylor, l1, l2, bn"),
        ({"epochs": 1, "minutes": 1.0}, "not both"),
        ({"steps": 0}, r"steps must lie in 1\.\.100; got 0"),
    ):
        with pytest.raises(InputError, match=words):
            prune(bundle, digits, out=tmp_path / "out", **changes)
    with pytest.raises(InputError, match="relu6 or hard_swish can replace silu, the activation of tiny; got 'gelu'"):
        prune(bundle, digits, out=tmp_path / "out", **QUICK, activation="gelu")
    with pytest.raises(BudgetError, match="the smallest network"):
        prune(bundle, digits, out=tmp_path / "out", macs=0.01, steps=1, epochs=1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"must be a new or empty folder; it contains thesis\.txt"):
        prune(bundle, digits, out=tmp_path / "full", **QUICK)
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    text = (other / "config.json").read_text().replace('"9"', '"nine"')
    (other / "config.json").write_text(text)
    with pytest.raises(InputError, match="classes of the teacher"):
        prune(other, digits, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trained", [False, True])
@torch.no_grad()
def test_norms_whose_statistics_are_not_those_of_their_inputs_are_rebased_and_the_network_computes_the_same(trained):
    """Folded BatchNorm, and BatchNorm frozen while gains and biases were trained, no longer detected as folded."""
    spec = dataclasses.replace(scale(get_spec("lite0", num_classes=4), width=0.2, depth=0.4, resolution=32))
    network = build_trained(spec, resolution=32)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
            module.weight.fill_(1)
            if trained:
                module.weight += 0.05 * torch.rand(module.weight.shape)
    assert has_folded_norms(state_arrays(network), spec) != trained
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = network(images)
    state = rebased(network, [images[:24], images[24:]])
    assert not has_folded_norms(state, spec)
    assert torch.equal(network(images), expected)  # unchanged

    def difference(state):
        fresh = build(spec).eval()
        load_arrays_(fresh, state, where="the test")
        return float((fresh(images) - expected).abs().max() / expected.abs().max()), fresh

    apart, fresh = difference(state)
    assert apart < 1e-4
    # With no channel removed, re-estimating the statistics changes almost nothing now; before, it changed everything.
    assert difference(renormed(fresh, [images]))[0] < 0.05
    assert difference(renormed(network, [images]))[0] > 0.3
