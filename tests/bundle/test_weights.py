"""Bundles: weights are read as they were saved, and mismatches are named."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

import effnet
from effnet.arch.scale import with_total_stride
from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import load_arrays_, load_module, load_state, save_bundle, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError


@pytest.fixture(scope="module")
def network():
    """A small network whose BatchNorms have non-default statistics."""
    spec = with_total_stride(effnet.scale(effnet.get_spec("b0", num_classes=3), phi=-20, resolution=16), 8)
    network = effnet.build(spec, seed=3)
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return network.eval()


@pytest.fixture
def bundle(network, tmp_path):
    config = ModelConfig(
        arch=network.spec, preprocess=Preprocess(resolution=16), class_names=("a", "b\n", "é"), versions={"effnet": "1"}
    )
    save_bundle(tmp_path / "new" / "bundle", config, state_arrays(network))
    return tmp_path / "new" / "bundle"


def rewrite(bundle, change):
    """Save the bundle's weights as `change` made them."""
    state = load_state(bundle)
    change(state)
    safetensors.numpy.save_file(state, bundle / "model.safetensors")


def test_a_network_comes_back_as_it_was_saved(network, bundle):
    again = load_module(bundle)
    assert not again.training
    assert again.spec == network.spec
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    found, expected = again.state_dict(), network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items() if tensor.is_floating_point())
    assert read_config(bundle).class_names == ("a", "b\n", "é")


def test_a_bundle_is_two_files_and_the_same_bytes_each_time(network, bundle):
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert files.keys() == {"config.json", "model.safetensors"}
    save_bundle(bundle, read_config(bundle), state_arrays(network))
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == files


def test_weights_are_saved_in_32_bits_without_batch_counters(network):
    arrays = state_arrays(network.to(torch.float64))
    network.to(torch.float32)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert not any("num_batches" in name for name in arrays)
    assert {"stem.conv.weight", "stem.norm.running_var", "classifier.bias"} <= arrays.keys()


def test_a_missing_weight_is_named(bundle):
    rewrite(bundle, lambda state: state.pop("classifier.bias"))
    with pytest.raises(
        BundleError, match=r"model\.safetensors does not .* lacks \['classifier\.bias'\] and .* nothing"
    ):
        load_module(bundle)


def test_an_unknown_weight_is_named(bundle):
    rewrite(bundle, lambda state: state.update({"classifier.scale": np.ones(3, np.float32)}))
    with pytest.raises(BundleError, match=r"lacks nothing and has unknown \['classifier\.scale'\]"):
        load_module(bundle)


def test_a_weight_of_another_shape_is_named(bundle):
    rewrite(bundle, lambda state: state.update({"classifier.bias": np.ones(4, np.float32)}))
    with pytest.raises(BundleError, match=r"classifier\.bias must have shape \(3,\); got \(4,\)"):
        load_module(bundle)


def test_weights_that_do_not_match_change_nothing(network):
    module = effnet.build(network.spec, seed=9)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = state_arrays(network) | {"stem.conv.weight": np.zeros(1, np.float32)}
    with pytest.raises(BundleError, match="WHERE: stem"):
        load_arrays_(module, state, where="WHERE")
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 100])
def test_a_file_that_is_no_safetensors_is_named(bundle, content):
    (bundle / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors is not a complete safetensors file"):
        load_module(bundle)


def test_a_truncated_file_is_named(bundle):
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="is not a complete safetensors file"):
        load_state(bundle)


def test_a_folder_without_weights_is_named(bundle):
    (bundle / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"a bundle must contain model\.safetensors; .* has none"):
        load_module(bundle)


def test_no_memory_is_taken_for_weights_that_the_file_does_not_have(bundle, monkeypatch):
    config = json.loads((bundle / "config.json").read_text())
    config["arch"]["head_channels"] = 60_000
    (bundle / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("effnet.bundle.weights.build_network", lambda *_: pytest.fail("a network was built"))
    with pytest.raises(
        BundleError, match=r"model\.safetensors must hold the [\d,]+ weights of its architecture; it has"
    ):
        load_module(bundle)


@pytest.mark.parametrize("stage", ["safetensors.numpy.save", "os.replace"])
def test_a_failed_save_leaves_the_old_bundle(stage, network, bundle, monkeypatch):
    before = {name: (bundle / name).read_bytes() for name in ("config.json", "model.safetensors")}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, fail)
    other = effnet.build(network.spec, seed=4)
    with pytest.raises(OSError, match="No space left"):
        save_bundle(bundle, read_config(bundle), state_arrays(other))
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    load_module(bundle)


def test_arrays_that_lie_by_columns_are_saved_as_they_are(bundle, network):
    """safetensors writes memory in its given order; scikit-learn's coefficients, for example, are column-major."""
    state = {name: np.asarray(array, order="F") for name, array in state_arrays(network).items()}
    save_bundle(bundle, read_config(bundle), state)
    assert all(np.array_equal(array, state[name]) for name, array in load_state(bundle).items())
