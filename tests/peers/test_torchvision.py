"""With torchvision's weights, every stage and the logits of every network are torchvision's."""

import parity
import pytest
import torch
from torch import nn

from effnet.arch.catalog import get_spec
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [
    *(f"efficientnet_b{i}" for i in range(8)),
    *(f"efficientnet_v2_{size}" for size in ("s", "m", "l")),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
]


def stages_of(peer: nn.Module) -> dict[str, nn.Module]:
    # Of the features, the first is the stem and the last is the head.
    rows = peer.features[1:-1] if hasattr(peer, "features") else [getattr(peer, f"layer{i}") for i in range(1, 5)]
    return {f"stages.{i}": row for i, row in enumerate(rows)}


def spec_of(name: str) -> ArchSpec:
    return get_spec(f"torchvision/{name}", num_classes=10)


def is_ours(name: str) -> bool:
    try:
        spec_of(name)
    except SpecError:
        return False
    return True


def test_no_network_of_torchvision_is_left_out(torchvision):
    assert set(NAMES) == {name for name in torchvision.models.list_models() if is_ours(name)}


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_stage_and_the_logits_equal_those_of_torchvision(torchvision, photos, name):
    peer = parity.bare(lambda: torchvision.models.get_model(name, weights=None, num_classes=10))
    parity.draw_weights_(peer)
    parity.give_statistics_(peer, photos)
    network = parity.copied(peer, spec_of(name), scheme="torchvision")
    for images in parity.images_for(peer, photos):
        parity.assert_none(parity.differences(network, peer, stages_of(peer), images))
