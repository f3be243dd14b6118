"""Modules from names, specs, published weights and bundles; `tests/contributing` trains with them."""

import dataclasses
import json

import pytest
import torch
from bundles import make_bundle
from safetensors.torch import load_file

import effnet
from effnet.arch.codec import spec_to_dict
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_module, load_state, save_bundle
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, SpecError, WeightsError
from effnet.nn.network import Network
from effnet.weights.catalog import find, preprocess_of
from effnet.weights.folding import fold_norms, unfold_norms

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("create") / "bundle")


def test_a_name_or_a_spec_gets_random_weights():
    module = effnet.create_model("lite0", num_classes=5, in_chans=1, seed=1)
    assert (module.spec.num_classes, module.spec.in_channels, module.training) == (5, 1, True)
    assert module.preprocess == Preprocess(resolution=224, mean=module.preprocess.mean, std=module.preprocess.std)
    assert module.preprocess.channels == 1
    again = effnet.create_model(effnet.get_spec("lite0", num_classes=5, in_channels=1), seed=1)
    assert torch.equal(again.stem.conv.weight, module.stem.conv.weight)
    assert effnet.create_model("lite0", num_classes=0).get_classifier().state_dict() == {}


def test_an_id_without_its_weights_has_their_network_and_preprocessing():
    module = effnet.create_model("timm/tf_efficientnet_lite0.in1k")
    assert module.spec == effnet.get_spec("tf_efficientnet_lite0")
    assert module.preprocess == preprocess_of(find("timm/tf_efficientnet_lite0.in1k"))
    with pytest.raises(WeightsError, match=r"channels of timm/efficientnet_b1_pruned\.in1k are in its file"):
        effnet.create_model("timm/efficientnet_b1_pruned.in1k")


def test_a_bundle_brings_its_weights_and_preprocessing(bundle):
    module, own = effnet.create_model(bundle), load_module(bundle)
    images = torch.rand(2, 1, 16, 16)
    assert module.preprocess == own.preprocess == read_config(bundle).preprocess
    assert torch.equal(module.eval()(images), own(images))
    assert effnet.create_model(str(bundle), num_classes=3)(images).abs().max() == 0  # a classifier of zeros
    features = effnet.create_model(bundle, num_classes=0).eval()(images)
    assert torch.equal(features, own.forward_head(own.forward_features(images), pre_logits=True))
    assert not module.frozen_norms


def test_the_stem_reads_other_channels_and_the_classifier_stays(lite0_file, tmp_path):
    whole = effnet.create_model(lite0_file).eval()
    grey = effnet.create_model(lite0_file, in_chans=1).eval()
    assert torch.equal(grey.classifier.weight, whole.classifier.weight)
    view = torch.rand(1, 1, 64, 64)
    # One channel gives what it gave as red, green and blue: Lite0's are normalised alike.
    torch.testing.assert_close(grey(view), whole(view.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert torch.equal(whole.stem.conv.weight, load_file(lite0_file)["conv_stem.weight"])


def test_a_spec_finds_the_weights_of_its_network(lite0_file, monkeypatch):
    """What is fetched is a stand-in of random weights; the choice is the catalog's."""
    wanted = []
    monkeypatch.setattr("effnet.weights.pretrained.fetch", lambda entry, **_: wanted.append(entry.id) or lite0_file)
    spec = effnet.get_spec("tf_efficientnet_lite0", num_classes=4)
    module = effnet.create_model(dataclasses.replace(spec, resolution=96), pretrained=True)
    assert wanted == ["timm/tf_efficientnet_lite0.in1k"]
    assert (module.spec.num_classes, module.spec.resolution, module.preprocess.resolution) == (4, 96, 96)
    assert torch.equal(module.stem.conv.weight, load_file(lite0_file)["conv_stem.weight"])
    effnet.create_model("lite0", pretrained=True)
    effnet.create_model("timm/tf_efficientnet_lite0.in1k", pretrained=True)
    assert set(wanted) == {"timm/tf_efficientnet_lite0.in1k"}
    with pytest.raises(WeightsError, match="no weights were published for b0 phi -5, exactly as it is"):
        effnet.create_model(effnet.scale("b0", phi=-5), pretrained=True)


def test_weights_with_folded_norms_keep_them_frozen(bundle, tmp_path):
    config, state = read_config(bundle), load_state(bundle)
    save_bundle(tmp_path / "folded", config, unfold_norms(config.arch, fold_norms(config.arch, state)))
    module = effnet.create_model(tmp_path / "folded")
    assert module.frozen_norms
    images = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(module.train()(images), load_module(bundle)(images), rtol=1e-4, atol=1e-4)


def test_a_json_file_is_a_spec(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(spec_to_dict(effnet.scale("b0", phi=-10))))
    assert effnet.create_model(path, num_classes=2).spec.num_classes == 2


@pytest.mark.parametrize("what", ["b00", "timm/b00"])
def test_an_unknown_network_is_an_error(what, tmp_path):
    with pytest.raises(SpecError, match="unknown network"):
        effnet.create_model(what)
    with pytest.raises(BundleError):
        effnet.create_model(tmp_path)
    for pretrained in (False, True):
        with pytest.raises(SpecError, match="must be a name, a bundle's folder, a JSON file or an ArchSpec; got int"):
            effnet.create_model(3, pretrained=pretrained)
    with pytest.raises(WeightsError, match="not downloaded yet"):
        effnet.create_model("torchvision/efficientnet_v2_l", pretrained=True, offline=True)


def test_features_only_has_no_unused_parameters():
    maps = effnet.create_model(effnet.scale("b0", phi=-15), features_only=True)
    assert not isinstance(maps, Network)
    sum(output.mean() for output in maps(torch.rand(4, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in maps.parameters())
