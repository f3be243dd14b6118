"""Feature maps and pooled features are timm's on timm's own state dict, which loads by itself."""

import pytest
import torch

import effnet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "resnet18"])
def test_the_maps_of_a_backbone_are_timms(timm, name) -> None:
    torch.manual_seed(0)
    peer = timm.create_model(name, num_classes=5).eval()
    model = effnet.create_model(name, num_classes=5).eval()
    effnet.load_state_dict(model, {"epoch": 2, "state_dict": peer.state_dict()})
    theirs = timm.create_model(name, features_only=True).eval()
    theirs.load_state_dict({key: value for key, value in peer.state_dict().items() if key in theirs.state_dict()})
    ours = effnet.create_model(name, features_only=True).eval()
    ours.load_state_dict({key: value for key, value in model.state_dict().items() if key in ours.state_dict()})
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        maps, expected = ours(images), theirs(images)
        first = len(expected) - len(maps)  # timm's ResNets also give the map before max pooling
        assert first == name.startswith("resnet")
        for found, wanted in zip(maps, expected[first:], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.forward_features(images), peer.forward_features(images), rtol=1e-4, atol=1e-4)
        pooled = peer.forward_head(peer.forward_features(images), pre_logits=True)
        found = model.forward_head(model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(found, pooled, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(images), peer(images), rtol=1e-4, atol=1e-4)
    info = [(row.channels, row.reduction) for row in ours.feature_info]
    assert info == list(zip(theirs.feature_info.channels(), theirs.feature_info.reduction(), strict=True))[first:]
    assert model.num_features == peer.num_features


def test_torchvisions_state_dict_loads_by_itself(torchvision) -> None:
    peer = torchvision.models.efficientnet_b0(num_classes=3).eval()
    model = effnet.create_model("torchvision/efficientnet_b0", num_classes=3).eval()
    effnet.load_state_dict(model, peer.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), peer(images), rtol=1e-4, atol=1e-4)
