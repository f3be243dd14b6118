"""The arithmetic of a list of layers."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs
from torch.nn import functional

from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.describe import describe
from effnet.arch.layers import INPUT, chain_of, map_sizes, named_layers, output_side, readers, same_padding, units_of
from effnet.errors import SpecError


@given(side=st.integers(1, 60), kernel_size=st.sampled_from((1, 3, 5, 7)), stride=st.integers(1, 4))
def test_torch_puts_out_the_side_that_same_padding_is_for(side, kernel_size, stride):
    padded = functional.pad(
        torch.zeros(1, 1, side, 1), (0, 0, *same_padding(side, kernel_size=kernel_size, stride=stride))
    )
    found = functional.conv2d(padded, torch.zeros(1, 1, kernel_size, 1), stride=(stride, 1))
    assert found.shape[2] == output_side(side, stride)


@pytest.mark.parametrize(
    "side, kernel_size, stride, pads",
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (14, 5, 2, (1, 2)), (7, 5, 1, (2, 2)), (8, 1, 2, (0, 0))],
)
def test_same_padding_is_tensorflows(side, kernel_size, stride, pads):
    assert same_padding(side, kernel_size=kernel_size, stride=stride) == pads


@settings(max_examples=20, deadline=None)
@given(spec=specs())
def test_readers_are_the_inputs_the_other_way_round(spec):
    layers = named_layers(spec)
    expected = {(source, name) for name, layer in layers for source in layer.inputs}
    assert {(source, name) for source, names in readers(layers).items() for name in names} == expected
    skipped = readers(layers, through=("norm",))
    assert not any(dict(layers)[name].op == "norm" for names in skipped.values() for name in names)
    assert skipped["stem.conv"] == skipped["stem.norm"] == ["stem.act"]


def test_sides_follow_the_strides_and_end_at_the_pool():
    sides = map_sizes(named_layers(get_spec("b0")), (225, 193))
    assert (sides[INPUT], sides["stem.conv"], sides["stages.1.0.depthwise.conv"], sides["head.conv"]) == (
        (225, 193),
        (113, 97),
        (57, 49),
        (8, 7),
    )
    assert (sides["stages.1.0.se.pool"], sides["stages.1.0.se.scale"]) == ((1, 1), (57, 49))
    assert sides["classifier"] == (1, 1)


@pytest.mark.parametrize(
    "name, block, chain",
    [
        ("b0", "stages.1.1", ["expand", "depthwise", "se", "project"]),
        ("b0", "stages.1.0", ["expand", "depthwise", "se", "project"]),
        ("v2_s", "stages.0.0", ["conv", "norm", "act"]),
        ("resnet18", "stages.0.0", []),
        ("resnet50", "stages.1.0", []),
    ],
)
def test_a_block_without_branches_is_a_chain(name, block, chain):
    units = units_of(named_layers(get_spec(name)), f"{block}.")
    assert [unit.name for unit in chain_of(units)] == chain


def test_an_activation_of_a_block_is_that_of_its_layers_alone():
    spec = get_spec("b0")
    stages = [list(row) for row in spec.stages]
    stages[2][1] = dataclasses.replace(stages[2][1], activation="relu6")
    found = dataclasses.replace(spec, stages=tuple(map(tuple, stages)))
    functions = {name: layer.function for name, layer in named_layers(found) if layer.op == "act"}
    before = {name: layer.function for name, layer in named_layers(spec) if layer.op == "act"}
    changed = {name for name, function in functions.items() if function != before[name]}
    assert changed == {f"stages.2.1.{name}" for name in ("expand.act", "depthwise.act", "se.act")}
    assert {functions[name] for name in changed} == {"relu6"}
    assert functions["head.act"] == "silu"
    assert "relu6" in describe(found)
    data = spec_to_dict(found)
    assert [("activation" in block) for block in data["stages"][2]] == [False, True]  # files of others are as before
    assert spec_from_dict(data) == found
    with pytest.raises(SpecError, match="a block's activation must be one of silu"):
        dataclasses.replace(stages[2][1], activation="tanh")
