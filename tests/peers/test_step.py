"""One training step changes what it changes in timm: every gradient and every running statistic."""

import parity
import pytest
import torch
from torch import Tensor, nn

from effnet.arch.catalog import get_spec
from effnet.bundle.weights import load_arrays_
from effnet.nn.network import Network, build
from effnet.weights.schemes import foreign_names, to_effnet

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_es",
    "tf_efficientnetv2_b0",
    "tf_efficientnetv2_s",
    "resnet18",
]


def pair_of(timm, photos, name: str, *, norm_momentum: float = 0.1) -> tuple[nn.Module, Network]:
    """Return timm's network and effnet's with its weights, both as they train."""
    spec = get_spec(f"timm/{name}", num_classes=10)
    peer = parity.bare(lambda: parity.create_timm(timm, name))
    parity.draw_weights_(peer)
    parity.give_statistics_(peer, photos)
    network = build(spec, norm_momentum=norm_momentum)
    arrays = {key: tensor.numpy() for key, tensor in peer.state_dict().items()}
    load_arrays_(network, to_effnet(arrays, spec, scheme="timm", where=name), where=name)
    return peer.train(), network.train()


def step_(network: nn.Module, photos) -> Tensor:
    """Run one batch forth and back and returns its loss."""
    images = parity.mixed_images(photos, count=6, side=48, seed=2)
    loss = nn.functional.cross_entropy(network(images), torch.arange(len(images)) % 10)
    loss.backward()
    return loss.detach()


def differences(peer: nn.Module, network: Network) -> dict[str, float]:
    """Return how far each gradient and each running statistic is from timm's, as a part of its scale."""
    own, theirs = changed_by_a_step(network), changed_by_a_step(peer)
    names = foreign_names(network.spec, "timm")
    assert own.keys() == names.keys()
    assert theirs.keys() == set(names.values())
    found = {}
    for name, value in own.items():
        expected = theirs[names[name]]
        assert value.shape == expected.shape, name
        found[name] = ((value - expected).abs().max() / expected.abs().max()).item()
    return found


def changed_by_a_step(network: nn.Module) -> dict[str, Tensor]:
    gradients = {name: value.grad for name, value in network.named_parameters()}
    return gradients | {name: value for name, value in network.named_buffers() if value.is_floating_point()}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_statistics_of_a_step_equal_those_of_timm(timm, photos, name):
    peer, network = pair_of(timm, photos, name)
    before = {key: value.clone() for key, value in network.named_buffers() if value.is_floating_point()}
    expected, found = step_(peer, photos), step_(network, photos)
    assert abs(found - expected) <= parity.TOLERANCE * expected
    parity.assert_none(differences(peer, network))
    # A comparison of nothing with nothing would pass, too.
    assert all((value.grad != 0).any() for value in network.parameters())
    assert all((network.get_buffer(key) != value).any() for key, value in before.items())


def test_the_comparison_sees_another_momentum(timm, photos):
    peer, network = pair_of(timm, photos, "efficientnet_lite0", norm_momentum=0.01)
    step_(peer, photos)
    step_(network, photos)
    far = {name for name, value in differences(peer, network).items() if value > parity.TOLERANCE}
    assert far == {name for name, value in network.named_buffers() if value.is_floating_point()}
