"""Weights transferred between specs: pruned networks equal masked ones, grown networks equal their source."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked import masked_, random_keep
from strategies import build_trained, specs

from effnet import get_spec
from effnet.arch.channels import keep_all, keep_from, kept_spec, tied_widths, width_channels
from effnet.arch.scale import scale, with_total_stride
from effnet.bundle.weights import load_arrays_
from effnet.bundle.weights import state_arrays as float_arrays
from effnet.errors import SpecError, WeightsError
from effnet.nn.network import build
from effnet.weights.adapt import has_folded_norms
from effnet.weights.morph import transfer

SIDE = 24
FAMILIES = ("b0", "lite0", "edgetpu_s", "v2_s", "v2_b0", "resnet18", "resnet50")


def tiny(name, **changes):
    """A network of the family with its kinds and strides, but few channels and classes."""
    spec = scale(get_spec(name, num_classes=5), width=0.1, depth=0.4, resolution=64)
    return dataclasses.replace(with_total_stride(spec, 8), resolution=SIDE, **changes)


def make_images(spec, side=SIDE, count=4):
    generator = torch.Generator().manual_seed(7)
    return 2 * torch.randn(count, spec.in_channels, side, side, generator=generator)


@torch.no_grad()
def outputs(spec, state, images):
    network = build(spec)
    load_arrays_(network, state, where="the test")
    return network.eval()(images)


@torch.no_grad()
def assert_equals_masked(spec, keep, seed=0):
    network = build_trained(spec, resolution=SIDE, seed=seed)
    state, images = float_arrays(network), make_images(spec)
    small = kept_spec(spec, keep)
    found = outputs(small, transfer(state, source=spec, target=small, keep=keep), images)
    expected = masked_(copy.deepcopy(network), spec, keep)(images)
    if not spec.num_classes:  # features: those that stay
        assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))


@settings(max_examples=40, deadline=None)
@given(spec=specs(), seed=st.integers(0, 1000))
def test_a_pruned_network_computes_what_the_masked_original_does(spec, seed):
    assert_equals_masked(spec, random_keep(spec, seed), seed)


@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_families_compute_what_the_masked_originals_do(name):
    spec = tiny(name)
    for seed in range(3):
        keep = random_keep(spec, seed)
        assert_equals_masked(spec, keep)


def test_gates_and_activations_that_are_open_at_zero_change_nothing():
    pairs = (("sigmoid", "hard_swish"), ("hard_sigmoid", "relu6"), ("none", "silu"))
    for gate, activation in pairs:
        spec = tiny("b0", se_gate=gate, activation=activation)
        assert_equals_masked(spec, random_keep(spec, 1))


def test_to_keep_all_changes_no_weight():
    spec = tiny("b0")
    state = float_arrays(build_trained(spec, resolution=SIDE))
    moved = transfer(state, source=spec, target=kept_spec(spec, keep_all(spec)), keep=keep_all(spec))
    assert moved.keys() == state.keys()
    assert all(np.array_equal(moved[name], state[name]) for name in state)


def test_the_weights_that_came_in_stay_as_they_were():
    spec = tiny("b0")
    state = float_arrays(build_trained(spec, resolution=SIDE))
    before = {name: array.copy() for name, array in state.items()}
    transfer(state, source=spec, target=scale(spec, width=1.5), keep=None)
    assert all(np.array_equal(before[name], state[name]) for name in state)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("folded", [False, True])
def test_a_grown_network_begins_by_computing_what_the_source_does(name, folded):
    spec = tiny(name)
    network = build_trained(spec, resolution=SIDE)
    if folded:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.zero_()
                module.running_var.fill_(1 - module.eps)
                torch.nn.init.ones_(module.weight)
    state, images = float_arrays(network), make_images(spec)
    assert has_folded_norms(state, spec) == folded
    grown = scale(spec, width=1.6, depth=2.0, resolution=SIDE)
    grown = dataclasses.replace(grown, stages=tuple(map(with_shortcuts, grown.stages)))
    moved = transfer(state, source=spec, target=grown)
    assert has_folded_norms(moved, grown) == folded
    expected = outputs(spec, state, images)
    found = outputs(grown, moved, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(expected.abs().max())))
    assert len(grown.blocks) > len(spec.blocks)


def with_shortcuts(blocks):
    """Copy of a block without a shortcut (EdgeTPU's first stage) cannot begin as nothing: they are left out."""
    return tuple(block for j, block in enumerate(blocks) if j == 0 or block.residual == "identity")


def test_a_narrower_network_takes_the_first_channels_and_a_shallower_one_the_first_blocks():
    spec = scale(tiny("b0"), width=2.0, depth=2.0, resolution=SIDE)
    small = scale(spec, width=0.5, depth=0.5, resolution=SIDE)
    state = float_arrays(build_trained(spec, resolution=SIDE))
    moved = transfer(state, source=spec, target=small)
    assert outputs(small, moved, make_images(spec)).isfinite().all()
    kernel = "stages.1.0.depthwise.conv.weight"
    assert np.array_equal(moved[kernel], state[kernel][: len(moved[kernel])])


def test_grown_channels_learn():
    """The copies must not stay unchanged: the weights that read them get gradients."""
    spec = tiny("b0")
    grown = scale(spec, width=2.0, depth=1.0, resolution=SIDE)
    state = float_arrays(build_trained(spec, resolution=SIDE))
    network = build(grown)
    load_arrays_(network, transfer(state, source=spec, target=grown), where="the test")
    network.train()(make_images(spec)).square().sum().backward()
    head = network.head.conv.weight.grad[:, spec.stages[-1][-1].out_channels :]
    assert (head.abs().amax(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 7}, "num_classes"),
        ({"activation": "relu"}, "activation"),
        ({"head_channels": 0}, "head"),
        ({"padding": "symmetric"}, "padding"),
    ],
)
def test_networks_that_compute_differently_share_no_weights(change, words):
    spec = tiny("b0")
    state = float_arrays(build(spec, seed=0))
    with pytest.raises(WeightsError, match=words):
        transfer(state, source=spec, target=dataclasses.replace(spec, **change))


def test_other_blocks_and_missing_or_misshapen_weights_are_refused():
    spec = tiny("b0")
    state = float_arrays(build(spec, seed=0))
    first = spec.stages[1][0]
    other = dataclasses.replace(first, kernel_size=7)
    changed = dataclasses.replace(spec, stages=(spec.stages[0], (other, *spec.stages[1][1:]), *spec.stages[2:]))
    with pytest.raises(WeightsError, match=r"stages\.1\.0 .* kernel_size is 3 in the source and 7 in the target"):
        transfer(state, source=spec, target=changed)
    with pytest.raises(WeightsError, match=r"must have stem\.conv\.weight; they lack it"):
        transfer({k: v for k, v in state.items() if k != "stem.conv.weight"}, source=spec, target=spec)
    with pytest.raises(WeightsError, match=r"classifier\.bias of .* must have shape \(5,\); got \(4,\)"):
        transfer(state | {"classifier.bias": np.zeros(4, np.float32)}, source=spec, target=spec)
    with pytest.raises(WeightsError, match="must be the kept part"):
        transfer(state, source=spec, target=spec, keep=random_keep(spec, 0))


def test_a_keep_that_does_not_fit_is_refused():
    spec = tiny("b0")
    names = width_channels(spec)
    everything = {name: tuple(range(count)) for name, count in names.items()}

    def refused(words, dropped=(), **changes):
        with pytest.raises(SpecError, match=words):
            kept_spec(spec, keep_from(spec, everything | changes, dropped=dropped))

    refused("ascending", stem=(1, 0))
    refused("channels 0 to", head=(0, 10_000))
    refused("ascending; got none", stem=())
    refused("depthwise_separable block must keep the same", stem=(0,))
    refused("squeezed", **{"stages.1.0.se": ()})
    refused("identity shortcut may be removed", dropped=("stages.1.0",))
    tied = next(tie for tie in tied_widths(spec) if sum("out" in name for name in tie.widths) > 1)
    refused("shortcut must keep the same", **{tied.widths[-1]: (0,)})
    fused = tiny("v2_s")
    kept = keep_all(fused)
    with pytest.raises(SpecError, match="a stage must keep a block"):
        kept_spec(fused, dataclasses.replace(kept, stages=((None,) * len(kept.stages[0]), *kept.stages[1:])))
    with pytest.raises(SpecError, match="must have the blocks"):
        kept_spec(spec, keep_all(tiny("resnet18")))
