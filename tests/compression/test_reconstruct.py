"""Weights re-fitted after pruning: nothing changes if no information is lost."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from more import more
from renorm import renormed
from strategies import build_trained, specs

from effnet import get_spec
from effnet.arch.channels import keep_all, keep_from, kept_spec, width_channels
from effnet.arch.scale import scale
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.compression.importance import weight_importance
from effnet.compression.norm_statistics import rebased
from effnet.compression.prune import count_of, prune
from effnet.compression.reconstruct import reconstructed
from effnet.nn.network import build
from effnet.weights.morph import transfer


def make_images(spec, *, count=24):
    generator = torch.Generator().manual_seed(0)
    side = spec.resolution
    return [torch.randn(8, spec.in_channels, side, side, generator=generator) for _ in range(count // 8)]


def network(spec, state):
    found = build(spec)
    load_arrays_(found, state, where="a test")
    return found.eval()


@settings(max_examples=12, deadline=None)
@given(spec=specs(min_classes=1), seed=st.integers(0, 9))
def test_with_all_channels_kept_nothing_changes(spec, seed):
    original = build_trained(spec, seed=seed, resolution=spec.resolution).eval()
    state = reconstructed(original, network(spec, state_arrays(original)), keep_all(spec), make_images(spec, count=8))
    for name, array in state_arrays(original).items():
        np.testing.assert_allclose(state[name], array, atol=1e-4, rtol=1e-3, err_msg=name)


def test_channels_that_others_repeat_are_not_missed():
    """A head with every channel duplicated: half of it is enough, once the classifier is re-fitted."""
    spec = dataclasses.replace(scale(get_spec("lite0", num_classes=5), phi=-12, resolution=48), head_channels=48)
    original = build_trained(spec, seed=1, resolution=48).eval()
    with torch.no_grad():
        for tensor in (original.head.conv.weight, *original.head.norm.state_dict().values()):
            if tensor.ndim:
                tensor[24:] = tensor[:24]
    keep = keep_from(spec, {n: tuple(range(c)) for n, c in width_channels(spec).items()} | {"head": tuple(range(24))})
    small = kept_spec(spec, keep)
    moved = transfer(state_arrays(original), source=spec, target=small, keep=keep)
    images = make_images(spec)
    solved = reconstructed(original, network(small, moved), keep, images)
    with torch.no_grad():
        wanted, cut, found = (net(images[0]) for net in (original, network(small, moved), network(small, solved)))
    scale_of = float(wanted.std(0).mean())
    assert float((cut - wanted).abs().mean()) > 0.2 * scale_of
    assert float((found - wanted).abs().mean()) < 0.05 * scale_of


@pytest.mark.parametrize("name", [more("lite0"), "b0", more("v2_b0"), more("edgetpu_s")])
def test_less_is_lost_on_the_images_than_with_new_statistics_alone(name):
    spec = scale(get_spec(name, num_classes=6), phi=-8, resolution=48)
    images = make_images(spec, count=64)
    original = network(spec, rebased(build_trained(spec, seed=0, resolution=48).eval(), images))
    state = state_arrays(original)
    found = prune(
        spec, importance=weight_importance(spec, state), limit=0.7 * count_of(spec, "macs"), scope="stage", round_to=4
    )
    moved = transfer(state, source=spec, target=found.spec, keep=found.keep)

    @torch.no_grad()
    def lost(state):
        small = network(found.spec, state)
        return float(np.mean([float((small(x) - original(x)).square().mean()) for x in images]))

    solved = reconstructed(original, network(found.spec, moved), found.keep, images)
    assert lost(solved) < lost(renormed(network(found.spec, moved), images))
    assert lost(solved) < lost(moved)
