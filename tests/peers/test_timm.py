"""With timm's weights, every stage and the logits of every network are timm's."""

import dataclasses

import parity
import pytest
import torch
from torch import nn

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.scale import with_eca
from effnet.arch.spec import ArchSpec, eca_kernel_size
from effnet.errors import SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

V1 = [f"efficientnet_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")]
LITE = [f"efficientnet_lite{i}" for i in range(5)]
EDGETPU = ["efficientnet_es", "efficientnet_em", "efficientnet_el"]
V2 = [f"efficientnetv2_{size}" for size in ("s", "m", "l", "xl")]
V2_BASE = [f"tf_efficientnetv2_b{i}" for i in range(4)]
RESNETS = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
# Networks of one shape in different conventions, which one set of weights serves.
PAIRS = [(name, f"tf_{name}") for name in (*V1, *LITE, *EDGETPU, *V2)]
ROWS: list[tuple[str, ...]] = [*PAIRS, *((name,) for name in (*V2_BASE, *RESNETS))]


def make_peer(timm, photos, name: str, *, side: int = 48, **changes: object) -> nn.Module:
    peer = parity.bare(lambda: parity.create_timm(timm, name, **changes))
    parity.draw_weights_(peer)
    parity.give_statistics_(peer, photos, side=side)
    return peer


def borrow(timm, name: str, donor: nn.Module) -> nn.Module:
    """Return timm's network, evaluating with the very tensors of `donor`, which has the same names."""
    peer = parity.bodiless(lambda: parity.create_timm(timm, name))
    peer.load_state_dict(donor.state_dict(), assign=True)
    return peer.eval()


def stages_of(peer: nn.Module) -> dict[str, nn.Module]:
    rows = peer.blocks if hasattr(peer, "blocks") else [peer.layer1, peer.layer2, peer.layer3, peer.layer4]
    return {f"stages.{i}": row for i, row in enumerate(rows)}


def spec_of(name: str) -> ArchSpec:
    return get_spec(f"timm/{name}", num_classes=10)


def is_ours(name: str) -> bool:
    try:
        spec_of(name)
    except SpecError:
        return False
    return True


def test_no_network_of_timm_is_left_out(timm):
    known = [name for pattern in ("*efficientnet*", "resnet*") for name in timm.list_models(pattern)]
    assert {name for row in ROWS for name in row} == {name for name in known if is_ours(name)}


@pytest.mark.parametrize("names", ROWS, ids=lambda names: names[0])
@torch.inference_mode()
def test_every_stage_and_the_logits_equal_those_of_timm(timm, photos, names):
    first, *others = names
    donor = make_peer(timm, photos, first)
    peers = {first: donor} | {name: borrow(timm, name, donor) for name in others}
    for name, peer in peers.items():
        network = parity.copied(peer, spec_of(name), scheme="timm")
        for images in parity.images_for(peer, photos):
            parity.assert_none(parity.differences(network, peer, stages_of(peer), images))


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnetv2_b0"])
@torch.inference_mode()
def test_photographs_of_the_full_size_give_the_logits_of_timm(timm, photos, name):
    spec = spec_of(name)
    peer = make_peer(timm, photos, name, side=spec.resolution)
    network = parity.copied(peer, spec, scheme="timm")
    images = parity.mixed_images(photos, count=2 * len(photos), side=spec.resolution, seed=0)
    parity.assert_none(parity.differences(network, peer, stages_of(peer), images))


@pytest.mark.parametrize(
    "change",
    [{"norm_epsilon": 1e-5}, {"padding": "symmetric"}, {"activation": "relu"}, {"se_gate": "hard_sigmoid"}],
    ids=lambda change: next(iter(change)),
)
@torch.inference_mode()
def test_the_comparison_sees_each_convention(timm, photos, change):
    peer = make_peer(timm, photos, "tf_efficientnet_b0")
    other = dataclasses.replace(spec_of("tf_efficientnet_b0"), **change)
    network = parity.copied(peer, other, scheme="timm")
    images = parity.mixed_images(photos, count=2, side=48, seed=0)
    found = parity.differences(network, peer, stages_of(peer), images)
    assert found["logits"] > 5 * parity.TOLERANCE


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnetv2_b0"])
@torch.inference_mode()
def test_efficient_channel_attention_is_that_of_timm(timm, photos, name):
    peer = make_peer(timm, photos, name, se_layer="eca")
    spec = with_eca(spec_of(name))
    assert cost(spec).params == sum(tensor.numel() for tensor in peer.parameters())
    network = parity.copied(peer, spec, scheme="timm")
    for images in parity.images_for(peer, photos):
        parity.assert_none(parity.differences(network, peer, stages_of(peer), images))


def test_the_kernel_of_efficient_channel_attention_follows_the_width_as_in_timm(timm):
    widths = range(3, 4097)
    expected = [timm.layers.EcaModule(width).conv.kernel_size[0] for width in widths]
    assert [eca_kernel_size(width) for width in widths] == expected
