"""Bundles go to a hub and come back through the hub's own client."""

import pytest
import torch
from bundles import make_bundle
from hub_server import COMMIT, serving_hub

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_module
from effnet.errors import BundleError, WeightsError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub without repositories, and the client pointed at it and at a cache of its own."""
    from huggingface_hub import constants

    with serving_hub() as served:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read when the client is imported
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield served


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("hub") / "bundle")
    (folder / "report.html").write_text("test images")
    (folder / "run").mkdir()
    (folder / "run" / "plan.json").write_text("{}")
    return folder


def test_a_published_bundle_comes_back_the_same(hub, bundle, monkeypatch):
    url = effnet.push_to_hub(bundle, "me/digits")
    assert url == f"{hub.url}/me/digits/commit/{COMMIT}"
    # Neither the report, which may show test images, nor the names of images in split.json.
    assert set(hub.files["me/digits"]) == {"config.json", "model.safetensors", "model.onnx"}
    hub.asked.clear()
    module, own = effnet.from_pretrained("me/digits"), load_module(bundle)
    assert {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path} == {
        "config.json",
        "model.safetensors",
    }
    assert not module.training
    assert module.preprocess == read_config(bundle).preprocess
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(module(images), own(images))
    assert effnet.from_pretrained("me/digits", revision=COMMIT, num_classes=3)(images).shape == (2, 3)

    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert torch.equal(effnet.from_pretrained("me/digits")(images), own(images))
    with pytest.raises(WeightsError, match="me/other is not downloaded yet"):
        effnet.from_pretrained("me/other")
    assert hub.asked == []


def test_a_folder_is_its_own_repository(bundle, tmp_path):
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(effnet.from_pretrained(bundle)(images), load_module(bundle)(images))
    assert len(effnet.from_pretrained(bundle, features_only=True)(images)) > 1
    with pytest.raises(BundleError):
        effnet.from_pretrained(tmp_path)


def test_what_is_no_bundle_is_neither_published_nor_opened(hub, bundle, tmp_path):
    with pytest.raises(BundleError):
        effnet.push_to_hub(tmp_path, "me/nothing")
    assert hub.asked == []
    with pytest.raises(WeightsError, match=r"me/absent/config.json cannot be downloaded \(.*404.*\); give USER"):
        effnet.from_pretrained("me/absent")
    hub.files["me/timms"] = {"config.json": b'{"architecture": "efficientnet_b0"}'}
    with pytest.raises(BundleError):
        effnet.from_pretrained("me/timms")
    with pytest.raises(WeightsError, match="cannot be published as me/a/b"):
        effnet.push_to_hub(bundle, "me/a/b")


def test_weights_larger_than_their_architecture_are_not_downloaded(hub, bundle):
    hub.files["me/huge"] = {"config.json": (bundle / "config.json").read_bytes(), "model.safetensors": bytes(3 * 10**6)}
    with pytest.raises(WeightsError, match=r"model.safetensors cannot be downloaded \(it must have at most"):
        effnet.from_pretrained("me/huge")
