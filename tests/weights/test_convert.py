"""Weights converted for another project load there, and back."""

import numpy as np
import pytest
import safetensors.numpy
import torch

import effnet
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError, WeightsError
from effnet.weights.convert import convert
from effnet.weights.pretrained import load_pretrained


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of timm's tf_ B0 with random weights and three classes."""
    spec = effnet.get_spec("tf_efficientnet_b0", num_classes=3)
    folder = tmp_path_factory.mktemp("convert") / "b0"
    config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=224), class_names=("a", "b", "c"))
    save_bundle(folder, config, state_arrays(effnet.build(spec, seed=0)))
    return folder


@pytest.mark.parametrize("scheme", ["timm", "lukemelas", "keras", "tensorflow", "effnet"])
def test_what_was_written_reads_back_to_the_same_weights(scheme, bundle, tmp_path, run_cli):
    out = tmp_path / "weights.safetensors"
    ran = run_cli("models", "convert", bundle, "--to", scheme, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    again = load_pretrained(str(out), model="tf_efficientnet_b0.aa_in1k").state
    state = safetensors.numpy.load_file(bundle / "model.safetensors")
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[name], array) for name, array in state.items())


def test_a_network_that_the_other_project_lacks_is_refused(tmp_path, run_cli):
    spec = effnet.get_spec("resnet18", num_classes=2)
    config = ModelConfig(arch=spec, preprocess=Preprocess(resolution=224), class_names=("a", "b"))
    save_bundle(tmp_path / "bundle", config, state_arrays(effnet.build(spec, seed=0)))
    ran = run_cli("models", "convert", tmp_path / "bundle", "--to", "keras", "--out", tmp_path / "new.safetensors")
    assert ran.code == 2
    assert "keras" in ran.err
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.elsewhere
def test_timm_takes_the_file(bundle, tmp_path):
    from benchmarks.peers import import_timm

    model = import_timm().create_model("tf_efficientnet_b0", num_classes=3).eval()
    convert(str(bundle), to="timm", out=tmp_path / "timm.safetensors")
    state = safetensors.numpy.load_file(tmp_path / "timm.safetensors")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = effnet.load_module(bundle)(images)
        assert (model(images) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_nothing_is_overwritten_and_schemes_are_checked(bundle, tmp_path):
    with pytest.raises(WeightsError, match="did you mean 'timm'"):
        convert(str(bundle), to="tim", out=tmp_path / "new.safetensors")
    (tmp_path / "old.safetensors").write_text("mine")
    with pytest.raises(InputError, match="must be a new file"):
        convert(str(bundle), to="timm", out=tmp_path / "old.safetensors")
    assert (tmp_path / "old.safetensors").read_text() == "mine"
    assert not (tmp_path / "new.safetensors").exists()
