import dataclasses

import pytest

from effnet import build, cost, describe, scale, solve_phi
from effnet.arch.catalog import get_spec
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, BlockSpec, Scaling, StemSpec, repeat_block, stage
from effnet.errors import InputError, SpecError

BLOCK = {"kind": "mbconv", "in_channels": 8, "mid_channels": 48, "out_channels": 12}
NETWORK = {
    "resolution": 32,
    "stem": StemSpec(channels=8),
    "stages": (stage("mbconv", repeats=2, expand_ratio=6, in_channels=8, out_channels=12),),
    "head_channels": 16,
}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "mbconf"}, r"block kind must be one of .* got 'mbconf'; did you mean 'mbconv'"),
        ({"residual": "identiy"}, r"residual .* got 'identiy'; did you mean 'identity'"),
        ({"kernel_size": 4}, "kernel_size must be odd; got 4"),
        ({"kernel_size": 0}, "kernel_size must be an integer of at least 1; got 0"),
        ({"stride": 3}, "stride must be 1 or 2; got 3"),
        ({"stride": 0}, "stride must be an integer of at least 1; got 0"),
        ({"in_channels": 0}, "mbconv in_channels .* got 0"),
        ({"mid_channels": -1}, "mbconv mid_channels .* got -1"),
        ({"out_channels": 8.0}, r"mbconv out_channels must be an integer .* got 8\.0"),
        ({"out_channels": True}, "out_channels must be an integer .* got True"),
        ({"se_channels": -2}, "se_channels must be an integer of at least 0; got -2"),
        ({"residual": "identity"}, "identity shortcut needs .* got stride 1, 8 -> 12"),
        ({"residual": "identity", "out_channels": 8, "stride": 2}, "got stride 2, 8 -> 8"),
        ({"residual": "projection"}, "only basic and bottleneck blocks project .* got mbconv"),
        ({"kind": "depthwise_separable"}, "no expansion: mid_channels must be 8, got 48"),
        ({"kind": "conv"}, "no expansion: mid_channels must be 12, got 48"),
        (
            {"kind": "conv", "mid_channels": 12, "se_channels": 2},
            "conv block has no squeeze.* got se_channels=2",
        ),
        ({"kind": "basic", "se_channels": 3}, "basic block has no squeeze.* got se_channels=3"),
        ({"eca_kernel": 4}, "eca_kernel must be odd, or 0 for none; got 4"),
        ({"eca_kernel": -1}, "mbconv eca_kernel must be an integer of at least 0; got -1"),
        ({"eca_kernel": 33}, "eca_kernel must be at most 31; got 33"),
        ({"eca_kernel": 3, "se_channels": 2}, "or ECA, not both; got se_channels=2 and eca_kernel=3: set one to 0"),
        (
            {"kind": "conv", "mid_channels": 12, "eca_kernel": 3},
            "conv block has no channel attention; .*=3",
        ),
        ({"kernel_size": 33}, "kernel_size must be at most 31; got 33"),
        ({"mid_channels": 10**9}, "mid_channels must be at most 65,536; got 1000000000"),
        ({"se_channels": 10**400}, r"se_channels must be at most 65,536; got 10{79}\.\.\."),
        ({"kind": ["x" * 10**6]}, r"block kind must be one of .{1,200}$"),
    ],
)
def test_a_block_that_cannot_be_is_refused_with_its_values(changes, message):
    with pytest.raises(SpecError, match=message):
        BlockSpec(**{**BLOCK, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"channels": 0}, "stem channels .* got 0"),
        ({"stride": 0}, "stem stride .* got 0"),
        ({"kernel_size": 2}, "stem kernel_size must be odd; got 2"),
        ({"max_pool": "no"}, "stem max_pool must be true or false; got 'no'"),
        ({"kernel_size": 2.5}, r"stem kernel_size .* got 2\.5"),
        ({"kernel_size": 10**9 + 1}, "stem kernel_size must be at most 31"),
        ({"stride": 33}, "stem stride must be at most 32; got 33"),
        ({"channels": 65_537}, "stem channels must be at most 65,536; got 65537"),
    ],
)
def test_a_stem_that_cannot_be_is_refused_with_its_values(changes, message):
    with pytest.raises(SpecError, match=message):
        StemSpec(**{"channels": 8, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fixed_ends": 1}, "fixed_ends must be true or false; got 1"),
        ({"first_expands_from": -5}, r"first_expands_from .* got -5"),
        ({"first_expands_from": "24"}, r"first_expands_from .* got '24'"),
    ],
)
def test_a_scaling_that_cannot_be_is_refused_with_its_values(changes, message):
    with pytest.raises(SpecError, match=message):
        Scaling(**changes)


def test_an_unknown_rounding_is_refused():
    with pytest.raises(SpecError, match=r"rounding must be one of v1, v2; got 'v3'"):
        Scaling(rounding="v3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"in_channels": 0}, "in_channels .* got 0"),
        ({"num_classes": -1}, "num_classes must be an integer of at least 0; got -1"),
        ({"resolution": 0}, "resolution .* got 0"),
        ({"resolution": 224.0}, r"resolution .* got 224\.0"),
        ({"head_channels": -8}, "head_channels .* got -8"),
        ({"activation": "swish"}, "activation must be one of .* got 'swish'"),
        ({"se_gate": "hard_sigmod"}, "se_gate .* did you mean 'hard_sigmoid'"),
        ({"padding": "valid"}, "padding must be one of same, symmetric; got 'valid'"),
        ({"norm_epsilon": 0.0}, r"norm_epsilon must lie between 1e-12 and 1; got 0\.0"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon .* got nan"),
        ({"norm_epsilon": 1e-300}, "norm_epsilon .* got 1e-300"),
        ({"norm_epsilon": "0.1"}, "norm_epsilon .* got '0.1'"),
        ({"in_channels": 1_025}, "in_channels must be at most 1,024"),
        ({"num_classes": 100_001}, "num_classes must be at most 100,000"),
        ({"resolution": 16_385}, "resolution must be at most 16,384"),
        ({"stages": ((NETWORK["stages"][0][0],) * 4_097,)}, "at most 4,096 blocks; got 4,097"),
        ({"stages": ()}, "at least one stage"),
        ({"pooled": [0]}, r"pooled must be numbers of stages, .* less than 1; got \[0\]"),
        ({"pooled": (1,)}, r"less than 1; got \(1,\)"),
        ({"pooled": (0, 0)}, "ascending"),
        ({"pooled": (True,)}, "pooled must be"),
        ({"pooled": (0,), "head_channels": 0}, "less than 0; got"),
        ({"stages": ((),)}, "each stage at least one block"),
        ({"stem": StemSpec(channels=16)}, "block 0 takes 8 channels but receives 16"),
        (
            {"stages": (NETWORK["stages"][0], NETWORK["stages"][0])},
            "block 2 takes 8 channels but receives 12",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_its_values(changes, message):
    with pytest.raises(SpecError, match=message):
        ArchSpec(**{**NETWORK, **changes})


def test_a_spec_error_is_an_input_error_with_exit_code_two():
    assert issubclass(SpecError, InputError)
    assert SpecError.exit_code == 2


@pytest.mark.parametrize("value", [BlockSpec(**BLOCK), StemSpec(channels=8), Scaling(), ArchSpec(**NETWORK)])
def test_specs_are_frozen_slotted_hashable_and_keyword_only(value):
    first = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, getattr(value, first))
    assert not hasattr(value, "__dict__")
    assert hash(value) == hash(dataclasses.replace(value))
    with pytest.raises(TypeError, match="positional"):
        type(value)("mbconv")


def test_the_name_of_a_network_does_not_count_when_comparing():
    first, second = (ArchSpec(**NETWORK, lineage=Lineage(base=name)) for name in ("first", "second"))
    assert first == second
    assert hash(first) == hash(second)
    assert first != dataclasses.replace(first, activation="relu")
    assert first != dataclasses.replace(first, scaling=Scaling(rounding="v2"))


def test_properties_of_a_network():
    spec = ArchSpec(**NETWORK)
    assert spec.blocks == spec.stages[0]
    assert spec.total_stride == 2
    assert spec.feature_channels == 16
    assert dataclasses.replace(spec, head_channels=0).feature_channels == 12
    pooled = dataclasses.replace(spec, stem=StemSpec(channels=8, max_pool=True))
    assert pooled.total_stride == 4


def test_stage_gives_stride_and_new_width_to_its_first_block_only():
    blocks = stage("mbconv", repeats=3, kernel_size=5, stride=2, expand_ratio=6, in_channels=24, out_channels=40, se_ratio=0.25)  # fmt: skip  # noqa: E501
    assert [(b.stride, b.in_channels, b.mid_channels, b.out_channels, b.se_channels, b.residual) for b in blocks] == [
        (2, 24, 144, 40, 6, "none"),
        (1, 40, 240, 40, 10, "identity"),
        (1, 40, 240, 40, 10, "identity"),
    ]
    assert {b.kernel_size for b in blocks} == {5}


def test_stage_without_expansion_has_kinds_of_its_own():
    assert {b.kind for b in stage("mbconv", repeats=2, in_channels=8, out_channels=8)} == {"depthwise_separable"}
    assert {b.kind for b in stage("fused_mbconv", repeats=2, in_channels=8, out_channels=8)} == {"conv"}
    assert stage("fused_mbconv", repeats=1, expand_ratio=4, in_channels=8, out_channels=8)[0].kind == "fused_mbconv"


def test_squeezed_widths_come_from_the_input_of_the_block_and_round_down_to_at_least_one():
    squeezed = [
        stage("mbconv", repeats=1, expand_ratio=6, in_channels=width, out_channels=8, se_ratio=0.25)[0].se_channels
        for width in (1, 3, 7, 8, 15, 112)
    ]
    assert squeezed == [1, 1, 1, 2, 3, 28]


def test_a_stage_can_expand_from_another_width_and_forgo_its_shortcuts():
    blocks = stage("fused_mbconv", repeats=2, expand_ratio=4, in_channels=32, out_channels=24, skip=False, expands_from=24)  # fmt: skip  # noqa: E501
    assert [(b.in_channels, b.mid_channels, b.residual) for b in blocks] == [
        (32, 96, "none"),
        (24, 96, "none"),
    ]


@pytest.mark.parametrize("repeats", [0, -1, 1.5])
def test_a_stage_needs_at_least_one_repeat(repeats):
    with pytest.raises(SpecError, match=f"repeats .* got {repeats}"):
        stage("mbconv", repeats=repeats, in_channels=8, out_channels=8)


def test_a_repeated_block_keeps_the_proportions_of_the_one_before_it():
    strided = stage("mbconv", repeats=1, stride=2, expand_ratio=6, in_channels=24, out_channels=40, se_ratio=0.25)[0]
    again = repeat_block(strided)
    assert (again.stride, again.in_channels, again.out_channels) == (1, 40, 40)
    assert (again.mid_channels, again.se_channels, again.residual) == (240, 10, "identity")
    assert repeat_block(again) == again


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_b0", "v2_s", "resnet18", "resnet50"])
def test_repeating_the_first_block_of_a_stage_gives_its_second(name):
    for blocks in get_spec(name).stages:
        if len(blocks) > 1:
            assert repeat_block(blocks[0]) == blocks[1]


def test_repeating_keeps_the_lack_of_a_shortcut_that_could_have_been():
    bare = stage("mbconv", repeats=1, expand_ratio=6, in_channels=8, out_channels=8, skip=False)[0]
    assert repeat_block(bare).residual == "none"
    narrowing = stage("mbconv", repeats=1, expand_ratio=6, in_channels=8, out_channels=4)[0]
    assert repeat_block(narrowing).residual == "identity"
    assert repeat_block(narrowing, skip=False).residual == "none"


def test_repeating_unexpanded_blocks_ties_their_middle_to_the_new_width():
    separable = stage("mbconv", repeats=1, in_channels=32, out_channels=16, se_ratio=0.25)[0]
    assert (repeat_block(separable).mid_channels, repeat_block(separable).se_channels) == (16, 4)
    plain = stage("fused_mbconv", repeats=1, stride=2, in_channels=32, out_channels=16)[0]
    assert repeat_block(plain).mid_channels == 16


def test_a_projecting_block_is_repeated_with_an_identity():
    first = get_spec("resnet50").stages[1][0]
    assert first.residual == "projection"
    assert repeat_block(first).residual == "identity"
    assert repeat_block(first).mid_channels == first.mid_channels


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_b0", "resnet18"])
def test_a_name_is_accepted_for_its_spec(name):
    spec = get_spec(name)
    assert cost(name) == cost(spec)
    assert describe(name) == describe(spec)
    assert scale(name, phi=-3) == scale(spec, phi=-3)
    assert solve_phi(name, max_macs=10**8) == solve_phi(spec, max_macs=10**8)
    assert build(name, seed=0).spec == spec


def test_what_names_no_network_is_an_error():
    for function in (cost, describe, build, lambda network: scale(network, phi=1)):
        with pytest.raises(SpecError, match="did you mean 'b0'"):
            function("b00")
        with pytest.raises(SpecError, match="must be an ArchSpec or a name of `effnet models list`; got NoneType"):
            function(None)
