"""The exported file: usable alone, equal to its network, or not written."""

import dataclasses
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import effnet
from effnet.bundle.config import read_config, write_config, write_digests
from effnet.data.preprocess import normalize
from effnet.errors import BundleError, DataError, EffnetError, MissingExtraError
from effnet.measurement.verify import TOLERANCE, check_export
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.weights.folding import random_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def session(small_bundle):
    """The bundle's file in a plain session of ONNX Runtime."""
    return onnxruntime.InferenceSession(small_bundle / "model.onnx", providers=["CPUExecutionProvider"])


def make_images(bundle, count, *, seed=0):
    side = effnet.load(bundle).config.preprocess.resolution
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 1), dtype=np.uint8)


def test_the_file_tells_its_classes_its_preprocessing_and_its_name(session, small_bundle):
    found, config = session.get_modelmeta().custom_metadata_map, effnet.load(small_bundle).config
    assert json.loads(found["class_names"]) == list(config.class_names)
    assert json.loads(found["preprocess"]) == config.preprocess.to_dict()
    assert found["network"] == config.arch.name


def test_the_file_maps_uint8_images_to_probabilities(session, small_bundle):
    side = effnet.load(small_bundle).config.preprocess.resolution
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", side, side, 1])
    assert (output.name, output.type, output.shape) == ("probabilities", "tensor(float)", ["batch", 10])


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_gives_probabilities_that_sum_to_one(session, small_bundle, batch):
    images = make_images(small_bundle, batch)
    (found,) = session.run(None, {"image": images})
    assert found.shape == (batch, 10)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert found.min() >= 0
    (one,) = session.run(None, {"image": images[:1]})
    np.testing.assert_allclose(found[:1], one, atol=1e-6)


def test_export_writes_the_very_file_again(bundle_copy):
    before = (bundle_copy / "model.onnx").read_bytes()
    found = effnet.export(bundle_copy)
    assert (bundle_copy / "model.onnx").read_bytes() == before
    assert (found.images, found.agreement) == (64, 1.0)
    assert found.max_difference < TOLERANCE
    assert not [path for path in bundle_copy.iterdir() if path.name.startswith(".")]


def test_export_checks_on_given_images(bundle_copy, tiny_images):
    assert effnet.export(bundle_copy, data=tiny_images).images == 60
    assert effnet.export(str(bundle_copy), data="digits").images == 64


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_inside_the_file_and_not_in_the_weights(bundle_copy, temperature):
    weights = (bundle_copy / "model.safetensors").read_bytes()
    config = dataclasses.replace(read_config(bundle_copy), temperature=temperature, threshold=0.625)
    write_config(config, bundle_copy)
    images = make_images(bundle_copy, 16)
    if temperature == 4:
        with pytest.raises(EffnetError, match="must match the eager probabilities"):
            check_export(effnet.load_module(bundle_copy), effnet.load(bundle_copy), images)
    assert effnet.export(bundle_copy).agreement == 1
    assert (bundle_copy / "model.safetensors").read_bytes() == weights
    session = onnxruntime.InferenceSession(bundle_copy / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = torch.from_numpy(normalize(images, config.preprocess)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = (effnet.load_module(bundle_copy)(pixels) / temperature).softmax(1)
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["threshold"] == "0.625"


def test_without_a_threshold_the_file_tells_of_none(session):
    assert "threshold" not in session.get_modelmeta().custom_metadata_map


def change_weights(path, change):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            array = onnx.numpy_helper.to_array(tensor).copy()
            change(array)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)


def test_a_tampered_file_is_caught(bundle_copy):
    def shuffle(array):
        array[:] = array[::-1].copy()

    change_weights(bundle_copy / "model.onnx", shuffle)
    with pytest.raises(BundleError, match="must have the SHA-256 in"):
        check_export(effnet.load_module(bundle_copy), effnet.load(bundle_copy), make_images(bundle_copy, 8))
    write_digests(bundle_copy, {})
    with pytest.raises(EffnetError, match=r"must match the eager probabilities within 0\.001; it differs by"):
        check_export(effnet.load_module(bundle_copy), effnet.load(bundle_copy), make_images(bundle_copy, 8))


def test_a_file_of_nan_is_caught(bundle_copy):
    change_weights(bundle_copy / "model.onnx", lambda array: array.fill(np.nan))
    write_digests(bundle_copy, {})
    with pytest.raises(BundleError, match="must return probabilities, from 0 to 1; it returned nan to nan"):
        check_export(effnet.load_module(bundle_copy), effnet.load(bundle_copy), make_images(bundle_copy, 8))


def test_a_file_that_fails_its_check_does_not_replace_the_old_one(bundle_copy, monkeypatch):
    before = (bundle_copy / "model.onnx").read_bytes()
    monkeypatch.setattr("effnet.measurement.verify.TOLERANCE", -1.0)
    with pytest.raises(EffnetError, match="This is a bug in effnet"):
        effnet.export(bundle_copy)
    assert (bundle_copy / "model.onnx").read_bytes() == before
    assert not [path for path in bundle_copy.iterdir() if path.name.startswith(".")]


def test_weights_of_another_network_are_named(bundle_copy):
    data = json.loads((bundle_copy / "config.json").read_text())
    data["arch"]["head_channels"] += 8
    (bundle_copy / "config.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"head\.conv\.weight must have shape"):
        effnet.export(bundle_copy)


def test_what_is_missing_is_named(bundle_copy, tmp_path):
    with pytest.raises(BundleError, match="a bundle is a folder"):
        effnet.export(tmp_path / "gone")
    with pytest.raises(DataError, match="there is no gone"):
        effnet.export(bundle_copy, data="gone")
    (bundle_copy / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"must contain model\.safetensors; .* has none"):
        effnet.export(bundle_copy)


def tiny_onnx():
    spec = effnet.scale(effnet.get_spec("lite0", num_classes=3, in_channels=1), phi=-20, resolution=32)
    return to_onnx(spec, random_weights(spec), mean=(0.5,), std=(0.5,), metadata={"a": "é"})


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'this needs onnx, .* pip install "effnet\[train\]"'):
        tiny_onnx()


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_onnx(tiny_onnx(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_onnx(tiny_onnx(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
