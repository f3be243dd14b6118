"""Efficient channel attention is one function in every part: the formula, training, pruning and every runtime."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from strategies import state_arrays
from torch.nn import functional

from effnet import build, cost, describe, get_spec, scale
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import layer_costs
from effnet.arch.scale import with_eca, with_expand_ratio
from effnet.arch.spec import eca_kernel_size, repeat_block, stage
from effnet.bundle.config import ModelConfig
from effnet.data.preprocess import Preprocess
from effnet.errors import WeightsError
from effnet.nn.layers import ChannelConv
from effnet.nn.network import fuse_
from effnet.runtimes.registry import open_engine
from effnet.runtimes.write import write_export
from effnet.weights.morph import transfer
from effnet.weights.schemes import COMPOSED, SCHEMES, foreign_names

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, PARTS = 16, {"onnx": "onnxruntime", "litert": "ai_edge_quantizer", "openvino": "nncf", "executorch": "torchao"}
ROW = {"repeats": 2, "expand_ratio": 6, "in_channels": 16, "out_channels": 24}


@given(st.integers(1, 65_536))
def test_the_kernel_is_odd_and_next_to_the_published_number(channels):
    """Equation 12 of the paper with gamma 2 and b 1, |t|_odd as its authors' code reads it."""
    wanted = (np.log2(channels) + 1) / 2
    kernel = eca_kernel_size(channels)
    assert kernel % 2 == 1
    assert kernel == 3 or wanted - 1 < kernel <= wanted + 1


def test_a_stage_and_what_is_derived_from_it_have_the_kernels_of_their_widths():
    blocks = stage("mbconv", eca=True, **ROW)
    assert [block.eca_kernel for block in blocks] == [3, 5] == [eca_kernel_size(w) for w in (96, 144)]
    assert repeat_block(blocks[0]) == dataclasses.replace(blocks[1], residual="identity")
    assert stage("conv", repeats=1, in_channels=8, out_channels=8, eca=True)[0].eca_kernel == 0
    b0 = with_eca("b0")
    assert b0.name == "b0 ECA"
    assert {block.se_channels for block in b0.blocks} == {0}
    for spec in (b0, scale(b0, width=4.0), scale(b0, phi=-8), with_expand_ratio(b0, 2), scale(b0, depth=2.0)):
        assert all(block.eca_kernel == eca_kernel_size(block.mid_channels) for block in spec.blocks)


def test_json_holds_it_and_files_of_other_networks_know_nothing_of_it():
    spec = with_eca("b0")
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec
    assert "eca" not in json.dumps(spec_to_dict(get_spec("b0")))
    assert "mbconv3, expand 6, eca 5" in describe(spec)


def test_it_costs_its_kernel_once_and_its_products_once_per_channel():
    spec = with_eca("b0")
    rows = {row.name: row for row in layer_costs(spec)}
    row = rows["stages.6.0.eca.conv"]
    assert (row.op, row.params, row.macs) == ("channel_conv", 5, 5 * 1152)
    bare = dataclasses.replace(
        spec, stages=tuple(tuple(dataclasses.replace(b, eca_kernel=0) for b in row) for row in spec.stages)
    )
    assert cost(spec).params - cost(bare).params == sum(block.eca_kernel for block in spec.blocks)
    assert cost(spec).macs - cost(bare).macs == sum(block.eca_kernel * block.mid_channels for block in spec.blocks)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_each_gate_reads_the_means_of_its_channel_and_its_neighbours(gate):
    spec = dataclasses.replace(with_eca("b0"), se_gate=gate)
    unit = build(spec, seed=0).stages[1][0].eca
    x = torch.randn(2, 96, 5, 4, generator=torch.Generator().manual_seed(0))
    means, (a, b, c) = x.numpy().mean((2, 3)), unit.conv.weight.detach().numpy()[0, 0]
    padded = np.pad(means, ((0, 0), (1, 1)))
    inside = a * padded[:, :-2] + b * padded[:, 1:-1] + c * padded[:, 2:]
    gates = 1 / (1 + np.exp(-inside)) if gate == "sigmoid" else np.clip(inside / 6 + 0.5, 0, 1)
    with torch.no_grad():
        np.testing.assert_allclose(unit(x).numpy(), x.numpy() * gates[:, :, None, None], atol=1e-6)


def test_a_kernel_keeps_its_centre_when_a_network_is_scaled():
    small = scale(with_eca(get_spec("b0", num_classes=3)), phi=-12, resolution=32)
    large = scale(small, width=6.0, resolution=32)
    state = state_arrays(build(small, seed=0))
    grown = transfer(state, source=small, target=large)
    name = "stages.3.0.eca.conv.weight"
    assert (state[name].shape, grown[name].shape) == ((1, 1, 3), (1, 1, 5))
    np.testing.assert_array_equal(grown[name][0, 0], [0, *state[name][0, 0], 0])
    back = transfer(grown, source=large, target=small)
    assert all(np.array_equal(back[key], state[key]) for key in back if key.endswith("eca.conv.weight"))
    squeezed = scale(get_spec("b0", num_classes=3), phi=-12, resolution=32)
    with pytest.raises(WeightsError, match="must squeeze on both sides or on none"):
        transfer(state, source=small, target=squeezed)
    bare = dataclasses.replace(
        small, stages=tuple(tuple(dataclasses.replace(b, eca_kernel=0) for b in row) for row in small.stages)
    )
    with pytest.raises(WeightsError, match="ECA on both sides or on none; its eca_kernel is 3 in the source"):
        transfer(state, source=small, target=bare)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in ("effnet", "timm", *COMPOSED)])
def test_schemes_without_names_for_it_say_so(scheme):
    with pytest.raises(WeightsError, match=f"'{scheme}' has no names for efficient channel attention"):
        foreign_names(with_eca("b0"), scheme)


@pytest.fixture(scope="module")
def trained():
    """A small network, trained on digits by the fused kernels, and unseen images [n, 16, 16, 1] with their classes."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    base = get_spec("b0", num_classes=10, in_channels=1)
    spec = with_eca(scale(dataclasses.replace(base, stem=dataclasses.replace(base.stem, stride=1)), phi=-14))
    spec = dataclasses.replace(spec, resolution=SIDE, stages=spec.stages[:4])
    torch.manual_seed(0)
    network = build(spec, seed=0, norm_momentum=0.3).to(memory_format=torch.channels_last).train()
    assert fuse_(network)
    assert all(block.fused for row in network.stages for block in row)
    kernels = [module for module in network.modules() if isinstance(module, ChannelConv)]
    before = [module.weight.detach().clone() for module in kernels]
    x, y = torch.from_numpy(pixels / 127.5 - 1).float().permute(0, 3, 1, 2), torch.from_numpy(labels)
    x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for step in range(160):
        chosen = torch.randint(0, 1400, (64,))
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 160)
        optimizer.zero_grad()
        functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
        optimizer.step()
    assert not any(torch.equal(module.weight, old) for module, old in zip(kernels, before, strict=True))
    preprocess = Preprocess(resolution=SIDE, mean=(0.5,), std=(0.5,))
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=tuple(map(str, range(10))))
    with torch.no_grad():
        expected = network.eval()(x[1400:]).softmax(1).numpy()
    return config, state_arrays(network), pixels[:64], pixels[1400:], labels[1400:], expected


def test_it_learns(trained):
    *_, labels, expected = trained
    assert (expected.argmax(1) == labels).mean() > 0.85


def elsewhere(name):
    return pytest.param(name, marks=pytest.mark.elsewhere)


@pytest.mark.parametrize("name", ["onnx", "litert", elsewhere("openvino")])
def test_every_runtime_computes_the_trained_network(name, trained, tmp_path):
    pytest.importorskip(PARTS[name])
    config, state, _, unseen, _, expected = trained
    found = open_engine(write_export(name, tmp_path, config, state)).run(unseen)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["onnx-fp16", "onnx-w8", "onnx-int8", "litert-int8", *map(elsewhere, ("openvino-int8", "executorch-int8"))],
)
def test_every_small_format_keeps_the_answers_of_the_trained_network(name, trained, tmp_path):
    pytest.importorskip(PARTS[name.partition("-")[0]])
    config, state, images, unseen, labels, expected = trained
    found = open_engine(write_export(name, tmp_path, config, state, images=images)).run(unseen)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95
    assert abs((found.argmax(1) == labels).mean() - (expected.argmax(1) == labels).mean()) < 0.03
    assert np.abs(found - expected).mean() < 0.01


@pytest.mark.elsewhere
def test_core_ml_converts_it(trained, tmp_path):
    if importlib.util.find_spec("coremltools") is None:
        pytest.skip("coremltools is not installed")
    config, state, *_ = trained
    assert write_export("coreml", tmp_path, config, state).is_dir()
