import dataclasses
import itertools

import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.scale import scale, with_total_stride
from effnet.errors import SpecError
from effnet.nas.spaces.stages import assemble, rows_of, uniform


def base_of(name):
    return dataclasses.replace(get_spec(name), padding="symmetric")


@pytest.mark.parametrize("name", ["b0", "b3", "lite0", "v2_b0", "v2_s"])
def test_without_choices_it_is_the_base(name):
    base = base_of(name)
    assert assemble(base, {"resolution": base.resolution}, short_side=500) == base


@pytest.mark.parametrize("name", ["b0", "v2_b0"])
@pytest.mark.parametrize("depth, width", [(1.0, 0.5), (1.5, 1.3), (0.3, 0.9), (2.2, 1.0)])
def test_uniform_choices_are_compound_scaling(name, depth, width):
    base = base_of(name)
    choices = uniform(base, resolution=192, depth=depth)
    ours, theirs = (
        assemble(base, choices, short_side=500, width=width),
        scale(base, depth=depth, width=width, resolution=192),
    )
    assert (cost(ours), len(ours.blocks)) == (cost(theirs), len(theirs.blocks))


@pytest.mark.parametrize("side, stride", [(32, 8), (64, 16), (16, 4), (128, 32)])
def test_small_images_lose_strides_from_the_front_as_in_plans(side, stride):
    base = base_of("b0")
    found = assemble(base, {"resolution": side}, short_side=side)
    assert found == dataclasses.replace(with_total_stride(base, stride), resolution=side)
    smaller = assemble(base, {"resolution": side, "last map": 2}, short_side=side)
    assert smaller.total_stride == min(32, 2 * stride)
    early = assemble(base, {"resolution": side, "strides": "early"}, short_side=side)
    assert early.total_stride == stride
    assert cost(early).macs <= cost(found).macs


def test_the_stride_of_a_stage_without_blocks_goes_to_the_next():
    base = base_of("b0")
    for absent in itertools.combinations(range(1, 8), 2):
        choices = {"resolution": 224} | {f"stage {n} repeats": 0 for n in absent}
        found = assemble(base, choices, short_side=224)
        assert found is None or (found.total_stride, len(found.stages)) == (32, 5)
    only = {f"stage {n} repeats": int(n == 2) for n in range(1, 8)}
    assert assemble(base, {"resolution": 224} | only, short_side=224) is None, "one stage has one stride"
    assert assemble(base, {"resolution": 8} | only, short_side=8).total_stride == 2
    assert assemble(base, {"resolution": 224} | dict.fromkeys(only, 0), short_side=224) is None


def test_every_choice_reaches_all_blocks_of_its_stage():
    base = base_of("b0")
    choices = {"resolution": 224, "stage 3 kind": "fused_mbconv", "stage 3 kernel": 3, "stage 3 expansion": 4}
    choices |= {"stage 3 attention": "none", "stage 3 repeats": 3, "stage 3 width": 1.25, "head width": 0.5}
    found = assemble(base, choices | {"stem width": 0.75}, short_side=224)
    assert (found.stem.channels, found.head_channels, found.stages[2][-1].out_channels) == (24, 640, 48)
    assert [(b.kind, b.kernel_size, b.se_channels) for b in found.stages[2]] == [("fused_mbconv", 3, 0)] * 3
    assert [b.mid_channels // b.in_channels for b in found.stages[2]] == [4] * 3
    assert [b.residual for b in found.stages[2]] == ["none", "identity", "identity"]
    assert found.stages[5][1:] == base.stages[5][1:]


def test_a_base_of_other_blocks_is_refused():
    with pytest.raises(SpecError, match="must be made of MBConv blocks; resnet18 has basic blocks"):
        rows_of(get_spec("resnet18"))
