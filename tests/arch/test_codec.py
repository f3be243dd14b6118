import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch.catalog import NAMES, get_spec
from effnet.arch.codec import FORMAT, spec_from_dict, spec_to_dict, stage_from_string, stage_to_string
from effnet.arch.spec import ArchSpec, BlockSpec, StemSpec, stage
from effnet.errors import SpecError

# _DEFAULT_BLOCKS_ARGS of tensorflow/tpu efficientnet_builder.py.
B0_STRINGS = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)
# From edgetpu/efficientnet_edgetpu_builder.py, and v2_base_block of google/automl effnetv2_configs.py.
EDGETPU_STRINGS = (
    "r1_k3_s11_e4_i24_o24_c1_noskip",
    "r2_k3_s22_e8_i24_o32_c1",
    "r4_k3_s22_e8_i32_o48_c1",
    "r5_k5_s22_e8_i48_o96",
    "r4_k5_s11_e8_i96_o144",
    "r2_k5_s22_e8_i144_o192",
)
V2_B0_STRINGS = (
    "r1_k3_s1_e1_i32_o16_c1",
    "r2_k3_s2_e4_i16_o32_c1",
    "r2_k3_s2_e4_i32_o48_c1",
    "r3_k3_s2_e4_i48_o96_se0.25",
    "r5_k3_s1_e6_i96_o112_se0.25",
    "r8_k3_s2_e6_i112_o192_se0.25",
)

SMALL = ArchSpec(
    resolution=32,
    stem=StemSpec(channels=8),
    stages=(stage("mbconv", repeats=2, expand_ratio=6, in_channels=8, out_channels=12),),
    head_channels=16,
)


def data(**changes: object) -> dict[str, object]:
    return {**spec_to_dict(SMALL), **changes}


@pytest.mark.parametrize("name", NAMES)
def test_a_named_network_survives_json_with_its_name(name):
    spec = get_spec(name)
    again = spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))
    assert again == spec
    assert again.name == name
    assert hash(again) == hash(spec)


def test_the_data_carry_the_format_and_nothing_but_fields():
    found = spec_to_dict(SMALL)
    assert found.pop("format") == FORMAT == 1
    assert found.pop("name") == SMALL.name
    optional = {"height", "decoder", "pooled"}  # a square without a decoder or pooled stages lacks them
    assert set(found) == {field.name for field in dataclasses.fields(ArchSpec)} - optional


def test_fields_with_defaults_may_be_left_out():
    short = data()
    for name in ("name", "activation", "scaling", "num_classes"):
        del short[name]
    assert spec_from_dict(short) == SMALL


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_version_is_refused_with_what_this_one_reads(version):
    with pytest.raises(SpecError, match=f"reads architecture format 1; got {version!r}"):
        spec_from_dict(data(format=version))


def test_a_missing_version_is_refused():
    fields = data()
    del fields["format"]
    with pytest.raises(SpecError, match="format 1; got None"):
        spec_from_dict(fields)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"activations": "relu"}, "architecture has no field 'activations'; did you mean 'activation'"),
        ({"zzz": 1}, "architecture has no field 'zzz'$"),
        ({"stem": {"chanels": 8}}, "stem has no field 'chanels'; did you mean 'channels'"),
        ({"stem": {}}, "stem lacks channels"),
        ({"stem": None}, "stem must be a JSON object; got None"),
        ({"stem": {"channels": 0}}, "stem: stem channels .* got 0"),
        ({"scaling": {"rounding": "v9"}}, "scaling: rounding .* got 'v9'"),
        ({"stages": 3}, "stages must be a list of lists"),
        ({"stages": {"0": []}}, "stages must be a list of lists"),
        ({"stages": [3]}, "stages must be a list of lists"),
        ({"stages": [[3]]}, r"stages\[0\]\[0\] must be a JSON object; got 3"),
        ({"stages": ["ab"]}, "stages must be a list of lists"),
        ({"stages": []}, "architecture: a network needs at least one stage"),
        ({"norm_epsilon": "small"}, "architecture: norm_epsilon .* got 'small'"),
        ({"num_classes": -3}, "architecture: num_classes .* got -3"),
    ],
)
def test_wrong_fields_are_named_with_where_they_stand(changes, message):
    with pytest.raises(SpecError, match=message):
        spec_from_dict(data(**changes))


def test_a_network_that_no_memory_holds_is_refused():
    data = spec_to_dict(get_spec("b0"))
    block = {"kind": "conv", "kernel_size": 31, "in_channels": 1600, "mid_channels": 1600, "out_channels": 1600}
    data |= {"stem": {"channels": 1600}, "stages": [[block]], "head_channels": 0}
    with pytest.raises(SpecError, match="at most 2,000,000,000 parameters; this one has 2,461,"):
        spec_from_dict(data)


@pytest.mark.parametrize("stages", [[[{}] * 5_000], [[{}]] * 5_000])
def test_blocks_are_counted_before_one_is_made(stages):
    with pytest.raises(SpecError, match="at most 4,096 blocks; got 5,000"):
        spec_from_dict(spec_to_dict(get_spec("b0")) | {"stages": stages})


def test_a_stage_of_a_string_has_no_end():
    with pytest.raises(SpecError, match="repeats must be at most 4,096; got 1000000000"):
        stage_from_string("r1000000000_k3_s11_e1_i16_o16")


def test_a_wrong_block_is_named_by_its_place():
    fields = data()
    block = dict(fields["stages"][0][1])
    with pytest.raises(SpecError, match=r"stages\[0\]\[1\] has no field 'strides'; did you mean 'stride'"):
        spec_from_dict({**fields, "stages": [[fields["stages"][0][0], {**block, "strides": 1}]]})
    del block["mid_channels"], block["in_channels"]
    with pytest.raises(SpecError, match=r"stages\[0\]\[1\] lacks in_channels, mid_channels"):
        spec_from_dict({**fields, "stages": [[fields["stages"][0][0], block]]})


@pytest.mark.parametrize("missing", ["resolution", "stem", "stages", "head_channels"])
def test_a_missing_field_is_named(missing):
    fields = data()
    del fields[missing]
    with pytest.raises(SpecError, match=missing):
        spec_from_dict(fields)


@pytest.mark.parametrize("value", [None, 3, "b0", [], [1], True])
def test_what_is_no_object_is_refused_by_its_type(value):
    with pytest.raises(SpecError, match=f"JSON object; got {type(value).__name__}"):
        spec_from_dict(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from([field.name for field in dataclasses.fields(ArchSpec)] + ["format"])
BLOCK_FIELDS = st.sampled_from([field.name for field in dataclasses.fields(BlockSpec)])


@settings(max_examples=150, deadline=None)
@given(JSON, st.dictionaries(FIELDS, JSON, max_size=4), st.dictionaries(BLOCK_FIELDS, JSON, max_size=3))
def test_garbage_raises_a_spec_error_and_nothing_else(garbage, network, block):
    first = {**spec_to_dict(SMALL)["stages"][0][0], **block}
    for value in (
        garbage,
        data(**network),
        data(stages=[[first]]),
        data(stem=garbage),
        data(scaling=garbage),
    ):
        try:
            found = spec_from_dict(value)
        except SpecError:
            continue
        assert spec_from_dict(spec_to_dict(found)) == found


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"r\d+(_[kseio]{1,2}[\d.]{1,4}){4,7}", fullmatch=True).filter(lambda t: len(t.split("_")[0]) < 4))  # fmt: skip  # noqa: E501
def test_garbage_block_strings_raise_a_spec_error_and_nothing_else(text):
    try:
        blocks = stage_from_string(text)
    except SpecError:
        return
    assert all(block.kernel_size % 2 for block in blocks)


@pytest.mark.parametrize(
    "name, strings", [("b0", B0_STRINGS), ("edgetpu_s", EDGETPU_STRINGS), ("v2_b0", V2_B0_STRINGS)]
)
def test_the_block_strings_of_the_original_code_give_the_named_networks(name, strings):
    spec = get_spec(name)
    fed = spec.stem.channels
    for text, blocks in zip(strings, spec.stages, strict=True):
        assert stage_from_string(text, in_channels=fed) == blocks
        fed = blocks[-1].out_channels


def test_strings_are_written_as_the_original_code_writes_them():
    assert tuple(stage_to_string(blocks) for blocks in get_spec("b0").stages) == B0_STRINGS
    first, *rest = get_spec("edgetpu_s").stages
    assert stage_to_string(first, expands_from=24) == EDGETPU_STRINGS[0]
    assert tuple(stage_to_string(blocks) for blocks in rest) == EDGETPU_STRINGS[1:]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("resnet")])
def test_strings_go_both_ways_for_every_efficientnet(name):
    spec = get_spec(name)
    for index, blocks in enumerate(spec.stages):
        expands_from = spec.scaling.first_expands_from if index == 0 else 0
        text = stage_to_string(blocks, expands_from=expands_from)
        assert stage_from_string(text, in_channels=blocks[0].in_channels) == blocks


def test_one_digit_and_two_digit_strides_mean_the_same():
    assert stage_from_string("r2_k3_s2_e6_i16_o24") == stage_from_string("r2_k3_s22_e6_i16_o24")
    assert stage_from_string("r2_k3_s2_e6_i16_o24")[0].stride == 2


def test_noskip_takes_every_shortcut_away_and_survives():
    blocks = stage_from_string("r3_k3_s11_e6_i16_o16_noskip")
    assert {block.residual for block in blocks} == {"none"}
    assert stage_to_string(blocks) == "r3_k3_s11_e6_i16_o16_noskip"
    assert {block.residual for block in stage_from_string("r3_k3_s11_e6_i16_o16")} == {"identity"}


def test_c1_is_a_fused_block_and_c0_is_not():
    assert stage_from_string("r1_k3_s11_e4_i16_o16_c1")[0].kind == "fused_mbconv"
    assert stage_from_string("r1_k3_s11_e1_i16_o16_c1")[0].kind == "conv"
    assert stage_from_string("r1_k3_s11_e4_i16_o16_c0")[0].kind == "mbconv"
    assert stage_from_string("r1_k3_s11_e1_i16_o16")[0].kind == "depthwise_separable"


def test_a_broken_expansion_ratio_is_kept():
    blocks = stage_from_string("r1_k3_s11_e3.5_i16_o16")
    assert blocks[0].mid_channels == 56
    assert stage_to_string(blocks) == "r1_k3_s11_e3.5_i16_o16"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has an unknown option: ''"),
        ("r1_k3_s11_e6_i16", "lacks o"),
        ("k3", "lacks r, s, e, i, o"),
        ("r1_k3_s11_e6_i16_o24_q7", "has an unknown option: 'q7'"),
        ("r1_k3_s11_e6_i16_o24_cc", "has an unknown option: 'cc'"),
        ("r1_k3_s11_e6_i16_o24_f1", "has an unknown option: 'f1'"),
        ("r1_k3_s11_e6_i16_o24_p1", "has an unknown option: 'p1'"),
        ("r1_k3_s11_e6_i16_o24_d2", "has an unknown option: 'd2'"),
        ("r1_r2_k3_s11_e6_i16_o24", "has an unknown option: 'r2'"),
        ("r1_k3_s11_e6_i16_o24_c2", "c must be 0 .* got 2"),
        ("r1.5_k3_s11_e6_i16_o24", r"has an invalid value.*1\.5"),
        ("r1_k3_s11_e1.2.3_i16_o24", "has an invalid value"),
        ("r0_k3_s11_e6_i16_o24", "repeats .* got 0"),
        ("r1_k4_s11_e6_i16_o24", "kernel_size must be odd; got 4"),
        ("r1_k3_s33_e6_i16_o24", "stride must be 1 or 2; got 3"),
        ("r1_k3_s21_e6_i16_o24", "s21"),
        ("r1_k3_s222_e6_i16_o24", "s222"),
        (f"r1_k3_s11_e{'9' * 400}_i16_o24", "has an invalid value"),
        (f"r1_k3_s11_e6_i16_o24_se{'9' * 400}", "has an invalid value"),
    ],
)
def test_a_block_string_that_means_nothing_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        stage_from_string(text)


def test_stages_that_no_string_can_say_are_refused():
    even = stage("mbconv", repeats=3, expand_ratio=6, in_channels=16, out_channels=16, se_ratio=0.25)
    pruned = (even[0], dataclasses.replace(even[1], mid_channels=90), even[2])
    with pytest.raises(SpecError, match="no TF block string"):
        stage_to_string(pruned)
    unexpanded = (dataclasses.replace(even[0], mid_channels=16),)
    with pytest.raises(SpecError, match="no TF block string"):
        stage_to_string(unexpanded)
    with pytest.raises(SpecError, match="no TF block string"):
        stage_to_string((even[0], dataclasses.replace(even[1], residual="none")))
    with pytest.raises(SpecError, match="no TF block string"):
        stage_to_string(get_spec("resnet18").stages[0])
