"""Activation maps: exact, in files of any network, computed on request alone."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import several_outputs
import torch
from bundles import make_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import SHARED
from scipy.stats import spearmanr
from several_outputs import SPECS, random_images, random_state, several_config
from strategies import specs as networks

import effnet
from effnet.bundle.config import ModelConfig, read_config, read_maps
from effnet.bundle.weights import load_arrays_, load_state
from effnet.data.preprocess import normalize
from effnet.data.view.evaluation import prepare_image
from effnet.errors import BundleError, InputError
from effnet.nn.network import build
from effnet.runtimes.onnxruntime.hidden_output import hide_output
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import without_classifier, write_export
from effnet.weights.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks(min_classes=1), st.integers(1, 40))
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_the_mean_of_a_map_and_the_bias_are_the_logit_of_any_network(name, tmp_path_factory, arch, side):
    config = several_config(SPECS[:1], arch=dataclasses.replace(arch, num_classes=2), side=side)
    state, images = random_state(config), random_images(config, 3)
    engine = open_engine(write_export(name, tmp_path_factory.getbasetemp(), config, state, maps=True))
    rows, maps = engine.run_with_maps(images)
    assert maps.shape == (3, 2, *engine.maps)
    np.testing.assert_array_equal(rows, engine.run(images))
    module = build(config.arch)
    load_arrays_(module, state, where="the test's weights")
    with torch.no_grad():
        logits = module.eval()(torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)).numpy()
    found = maps.mean((2, 3)) + state["classifier.bias"] / config.temperatures
    largest = max(1.0, float(np.abs(maps).max()))
    np.testing.assert_allclose(found, logits / config.temperatures, rtol=0, atol=1e-4 * largest)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    names = ["onnx", "onnx-fp16", "onnx-w8", "onnx-int8", "litert", "litert-int8"]
    several_outputs.write_several(folder, names, maps=True)
    return folder


@pytest.mark.parametrize("name", ["onnx", "onnx-fp16", "onnx-w8", "onnx-int8", "litert", "litert-int8"])
def test_each_precision_has_the_maps_of_the_eager_network(made, name):
    several_outputs.assert_maps(made, name)


def test_a_redrawn_classifier_gives_other_maps(made):
    """A map that came from the image alone, such as an edge detector, would stay as it is."""
    config, state = read_config(made), load_state(made)
    images = random_images(config, 16)
    rng = np.random.default_rng(1)
    spread = state["classifier.weight"].std(axis=1, keepdims=True)
    redrawn = state | {"classifier.weight": (rng.standard_normal((13, 24)) * spread).astype(np.float32)}
    folder = made / "redrawn"
    folder.mkdir()
    maps = [open_engine(write_export("onnx", folder, config, given, maps=True)).run_with_maps(images)[1]
            for given in (state, redrawn)]  # fmt: skip
    ranks = [found.reshape(16, 13, -1).argsort(-1).argsort(-1).astype(float) for found in maps]
    centred = [found - found.mean(-1, keepdims=True) for found in ranks]
    related = (centred[0] * centred[1]).sum(-1) / (centred[0] ** 2).sum(-1)
    assert abs(related.mean()) < 0.3


def test_a_redrawn_classifier_gives_other_maps_of_photographs(tmp_path):
    """Of the real Lite0 on photographs, with a classifier that was fitted on them."""
    weights, photos = SHARED / "weights" / "tf_efficientnet_lite0_headless.safetensors", SHARED / "data" / "photos7"
    if not (weights.is_file() and photos.is_dir()):
        pytest.skip("the weights and photographs beside the repository are absent")
    found = load_pretrained(str(weights))
    preprocess = dataclasses.replace(found.preprocess, resolution=128)
    folders = sorted(path for path in photos.iterdir() if path.is_dir())[:3]
    files = [file for folder in folders for file in sorted(folder.iterdir())[:6]]
    images = np.stack([prepare_image(file, preprocess) for file in files])
    arch = dataclasses.replace(found.spec, num_classes=3, resolution=128)
    config = ModelConfig(arch=arch, preprocess=preprocess, class_names=("a", "b", "c"))
    backbone = {name: array for name, array in found.state.items() if not name.startswith("classifier.")}
    head = {"classifier.weight": np.zeros((3, 1280), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    bare = without_classifier(config)
    path = write_export("onnx-features", tmp_path, bare, backbone)
    features = open_engine(path).run(images).astype(np.float64)
    wanted = np.repeat(np.eye(3), 6, axis=0) - 1 / 3
    fitted = np.linalg.lstsq(features - features.mean(0), wanted, rcond=1e-3)[0].T.astype(np.float32)
    redrawn = np.random.default_rng(0).permuted(fitted, axis=1)
    maps = []
    for weight in (fitted, redrawn):
        given = backbone | head | {"classifier.weight": weight}
        _, map_ = open_engine(write_export("onnx", tmp_path, config, given, maps=True)).run_with_maps(images)
        maps.append((map_ - map_.mean(1, keepdims=True)).reshape(18, 3, -1))
    known = np.repeat(np.arange(3), 6)
    related = [spearmanr(a[k], b[k]).statistic for a, b, k in zip(*maps, known, strict=True)]
    assert abs(np.mean(related)) < 0.3


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


def test_a_bundle_without_maps_names_the_command_that_writes_them(bundle):
    images = np.zeros((1, 16, 16, 1), np.uint8)
    with pytest.raises(BundleError, match=r"`effnet export .*bundle --maps --to onnx` writes it"):
        effnet.load(bundle).maps(images)
    before = effnet.load(bundle).outputs(images)
    effnet.export(bundle, maps=True)
    found = effnet.load(bundle)
    assert read_maps(bundle) == ("model.onnx",)
    assert found.maps(images).shape == (1, 10, 2, 2)
    np.testing.assert_array_equal(found.outputs(images), before)
    assert [output.name for output in onnx.load(bundle / "model.onnx").graph.output] == ["probabilities", "cam"]
    effnet.export(bundle)
    assert read_maps(bundle) == ()
    with pytest.raises(BundleError, match="activation maps need"):
        effnet.load(bundle).maps(images)


def test_an_export_keeps_what_is_known_of_the_other_files(bundle):
    effnet.export(bundle, to=["onnx", "litert"], maps=True)
    effnet.export(bundle, to="onnx-fp16")
    effnet.export(bundle, features=True)
    assert read_maps(bundle) == ("model.onnx", "model.tflite")
    effnet.export(bundle, to="litert")
    assert read_maps(bundle) == ("model.onnx",)


def test_what_cannot_have_maps_is_refused(bundle):
    with pytest.raises(InputError, match=r"files of onnxruntime, .* can return activation maps; got coreml"):
        effnet.export(bundle, to="coreml", maps=True)
    with pytest.raises(InputError, match="give --maps or --features, not both"):
        effnet.export(bundle, maps=True, features=True)
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(config | {"maps": "model.onnx"}))
    with pytest.raises(BundleError, match="maps must be a list of texts"):
        read_maps(bundle)


@pytest.mark.parametrize("shape", [["batch", 9, 2, 2], ["batch", 10, 4], ["batch", 10, 0, 2], ["batch", 10, "h", 2]])
def test_a_file_whose_maps_are_not_those_of_its_columns_is_refused(bundle, shape):
    effnet.export(bundle, maps=True)
    model = onnx.load(bundle / "model.onnx")
    next(entry for entry in model.metadata_props if entry.key == "cam").value = json.dumps(shape)
    onnx.save(model, bundle / "other.onnx")
    with pytest.raises(BundleError, match="must return cam as float32 maps of its 10 columns"):
        open_engine(bundle / "other.onnx")


def test_maps_are_computed_on_request_alone(bundle):
    effnet.export(bundle, maps=True)
    engine = open_engine(bundle / "model.onnx")
    assert [output.name for output in engine.session.get_outputs()] == ["probabilities"]
    engine.run(np.zeros((1, 16, 16, 1), np.uint8))
    assert engine._mapping is None


@given(st.sampled_from(["cam", "probabilities", "image", ""]), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_an_output_is_hidden_by_one_byte_and_nothing_else_changes(name, position):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = ["a", "b", "c"]
    names.insert(position, "cam")
    nodes = [helper.make_node("Identity", ["image"], [output]) for output in names]
    declared = [helper.make_tensor_value_info(output, kind, [1, "n"]) for output in names]
    graph = helper.make_graph(nodes, "cam", [helper.make_tensor_value_info("image", kind, [1, "n"])], declared)
    model = helper.make_model(graph)
    data = model.SerializeToString()
    found = hide_output(data, name)
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    if name == "cam":
        hidden = expected.graph.output.pop(position)
        expected.graph.value_info.append(hidden)
        assert sum(a != b for a, b in zip(data, found, strict=True)) == 1
    assert onnx.load_from_string(found) == expected


def test_a_file_without_declared_maps_or_with_odd_ones_has_none(bundle):
    effnet.export(bundle, maps=True)
    model = onnx.load(bundle / "model.onnx")
    for text in ("", "{}", "[" * 100_000, "3", "no JSON"):
        entry = next(entry for entry in model.metadata_props if entry.key == "cam")
        entry.value = text
        onnx.save(model, bundle / "odd.onnx")
        assert open_engine(bundle / "odd.onnx").maps is None
    entry.value = json.dumps(["batch", 10, 3, 3])  # it returns others
    onnx.save(model, bundle / "odd.onnx")
    engine = open_engine(bundle / "odd.onnx")
    with pytest.raises(BundleError, match=r"must return float32 \[1, 10, 3, 3\]; it returned float32 \[1, 10, 2, 2\]"):
        engine.run_with_maps(np.zeros((1, 16, 16, 1), np.uint8))
