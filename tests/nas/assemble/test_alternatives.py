"""Alternatives of parts: valid networks, which every combination of them is as well."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs

from effnet import cost, get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.errors import SpecError
from effnet.nas.assemble.alternatives import HEAD, Alternative, alternatives, assembled_spec, in_words, own


def names(spec, part):
    return [in_words(spec, part, found).partition(" ")[2] for found in alternatives(spec)[part]]


def test_a_block_of_lite0_has_every_width_both_kernels_and_can_be_dropped():
    spec = get_spec("lite0")
    widths = ["kept", *(f"{share} of its channels" for share in ("75%", "50%", "35%", "25%"))]
    kernels = ["kernel 3", *(f"{width}, kernel 3" for width in widths[1:])]
    assert names(spec, "stages.5.1") == [*widths, *kernels, "dropped"]
    assert names(spec, "stages.5.0") == [*widths, *kernels]  # it has a stride
    assert names(spec, "stages.6.0") == widths
    assert names(spec, "stages.0.0") == ["kept"]  # its middle is its input
    assert names(spec, HEAD) == widths
    assert HEAD not in alternatives(dataclasses.replace(spec, num_classes=0))


def test_squeezes_and_activations_of_b0_combine_with_widths():
    found = alternatives(get_spec("b0"), shares=(0.5,))["stages.1.1"]
    inside = {(each.channels, each.se_channels, each.activation) for each in found if not each.dropped}
    assert inside == {(w, s, a) for w in (144, 72) for s in (6, 0) for a in ("", "relu6", "hard_swish")}
    assert found[0] == own(get_spec("b0"), "stages.1.1")
    everything = alternatives(get_spec("b0"))
    assert len([a for a in everything["stages.4.1"] if not a.dropped]) == 5 * 2 + 5 * 2 * 2
    assert {a.channels / 672 for a in everything["stages.4.1"] if a.activation} == {1, 0.5}
    assert [sum(map(len, alternatives(get_spec(name), round_to=16).values())) for name in ("lite0", "b0")] == [134, 379]


def test_a_width_is_rounded_and_never_repeated():
    spec = get_spec("lite0")
    assert [each.channels for each in alternatives(spec, shares=(0.9, 0.85, 0.1), round_to=16)["stages.1.0"]] == [
        96,
        80,
        16,
    ]


def drawn(data, spec, **options):
    """Draw a choice that leaves every stage a block."""
    choice = {part: data.draw(st.sampled_from(found)) for part, found in alternatives(spec, **options).items()}
    for i, row in enumerate(spec.stages):
        parts = [f"stages.{i}.{j}" for j in range(len(row))]
        if all(choice[part].dropped for part in parts):
            del choice[parts[0]]
    return choice


@settings(max_examples=30, deadline=None)
@given(spec=specs(), data=st.data())
def test_every_choice_is_a_network_no_larger_that_a_file_can_hold(spec, data):
    choice = drawn(data, spec, round_to=2, shares=(0.6, 0.3))
    found = assembled_spec(spec, choice)
    assert cost(found).macs <= cost(spec).macs
    assert cost(found).params <= cost(spec).params
    assert spec_from_dict(spec_to_dict(found)) == found
    assert found.feature_channels == spec.feature_channels or spec.num_classes
    kept = {part: own(spec, part) for part in choice}
    assert assembled_spec(spec, kept) == assembled_spec(spec, {}) == spec
    assert assembled_spec(spec, kept).name == spec.name


def test_an_empty_stage_and_an_unknown_part_are_refused():
    spec = get_spec("lite0")
    gone = {f"stages.1.{j}": dataclasses.replace(own(spec, f"stages.1.{j}"), dropped=True) for j in range(2)}
    with pytest.raises(SpecError, match="identity shortcut"):
        assembled_spec(spec, gone)
    with pytest.raises(SpecError, match="a part must be a block"):
        in_words(spec, "stages.9.0", Alternative(channels=1))
