"""Pruning of a spec: the limit is met, widths are rounded, and important channels stay."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs

from effnet import cost, get_spec
from effnet.arch.channels import keep_all, kept_spec, tied_widths, width_channels
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.scale import scale
from effnet.bundle.weights import state_arrays
from effnet.compression.importance import Importance, weight_importance
from effnet.compression.prune import count_of, prune, vector_width
from effnet.errors import BudgetError, InputError
from effnet.nn.network import build

FAMILIES = ("b0", "lite0", "edgetpu_s", "v2_b0", "resnet18", "resnet50")


def random_importance(spec, *, seed=0, additive=True):
    rng = np.random.default_rng(seed)
    ties = tied_widths(spec)
    blocks = {
        f"stages.{i}.{j}": float(rng.random())
        for i, row in enumerate(spec.stages)
        for j, block in enumerate(row)
        if block.residual == "identity"
    }
    channels = {tie.name: rng.lognormal(0, 2, tie.channels) for tie in ties}
    return Importance(method="taylor" if additive else "l1", additive=additive, channels=channels, blocks=blocks)


@pytest.mark.parametrize("name", FAMILIES)
def test_multiply_accumulates_land_within_two_percent_below_the_limit(name):
    spec = get_spec(name)
    for ratio, additive, scope, drop in (
        (0.8, True, "global", False),
        (0.5, True, "global", False),
        (0.5, False, "global", True),
        (0.8, True, "stage", True),
    ):
        limit = ratio * cost(spec).macs
        found = prune(
            spec, importance=random_importance(spec, additive=additive), limit=limit, scope=scope, drop_blocks=drop
        )
        assert 0.98 * limit <= cost(found.spec).macs <= limit
        assert_rounded(spec, found, 8)
        assert found.spec == kept_spec(spec, found.keep)
        assert spec_from_dict(spec_to_dict(found.spec)) == found.spec


def assert_rounded(spec, found, multiple):
    """Every pruned width is a multiple, squeezed widths too."""
    before, after = width_channels(spec), width_channels(kept_spec(spec, dataclasses.replace(found.keep)))
    if len(spec.blocks) == len(found.spec.blocks):
        for name, count in after.items():
            assert count == before[name] or (count < before[name] and count % multiple == 0), name


@settings(max_examples=40, deadline=None)
@given(spec=specs(), seed=st.integers(0, 99), share=st.floats(0.3, 1.0), drop=st.booleans(), additive=st.booleans())
def test_any_network_is_pruned_to_a_valid_one_below_the_limit_or_refused(spec, seed, share, drop, additive):
    limit = share * cost(spec).macs
    try:
        found = prune(
            spec,
            importance=random_importance(spec, seed=seed, additive=additive),
            limit=limit,
            round_to=1,
            drop_blocks=drop,
        )
    except BudgetError:
        return
    assert cost(found.spec).macs <= limit
    assert found.spec.feature_channels == spec.feature_channels or spec.num_classes
    assert all(found.spec.stages)


def test_a_limit_above_the_network_changes_nothing():
    spec = get_spec("b0")
    found = prune(spec, importance=random_importance(spec), limit=2 * cost(spec).macs)
    assert found.keep == keep_all(spec)


def test_the_best_channels_stay():
    spec = get_spec("lite0")
    importance = random_importance(spec, additive=False)
    found = prune(spec, importance=importance, limit=0.5 * cost(spec).macs)
    for name in ("head", "stages.2.1.mid"):
        kept = found.keep.head if name == "head" else found.keep.stages[2][1].mid
        values = importance.channels[name]
        assert 0 < len(kept) < len(values)
        assert values[list(kept)].min() >= np.delete(values, kept).max()


def test_a_block_that_does_nothing_goes_and_every_stage_keeps_one():
    spec = get_spec("v2_s")
    importance = random_importance(spec)
    blocks = dict.fromkeys(importance.blocks, 1e9) | {"stages.3.2": 0.0}
    found = prune(
        spec, importance=dataclasses.replace(importance, blocks=blocks), limit=0.8 * cost(spec).macs, drop_blocks=True
    )
    assert [(i, row.index(None)) for i, row in enumerate(found.keep.stages) if None in row] == [(3, 2)]
    nothing = dataclasses.replace(importance, blocks=dict.fromkeys(importance.blocks, 0.0))
    found = prune(spec, importance=nothing, limit=0.3 * cost(spec).macs, drop_blocks=True)
    assert all(found.spec.stages)
    assert len(found.spec.blocks) < 30 < 40 == len(spec.blocks)


def test_with_the_scope_stage_all_stages_lose_alike():
    spec = get_spec("b0")
    importance = random_importance(spec, additive=False)
    # With the global scope, the stage that seems least important would be emptied.
    low = {name: v * (1e-6 if name.startswith("stages.3") else 1) for name, v in importance.channels.items()}
    importance = dataclasses.replace(importance, channels=low)
    shares = {}
    for scope in ("global", "stage"):
        found = prune(spec, importance=importance, limit=0.6 * cost(spec).macs, scope=scope)
        middles = [[block.mid_channels for block in row] for row in found.spec.stages]
        shares[scope] = sum(middles[3]) / sum(block.mid_channels for block in spec.stages[3])
    assert shares["global"] < 0.1 < 0.5 < shares["stage"]


def test_a_predictor_of_latency_can_be_the_limit():
    spec = get_spec("lite0")

    def milliseconds(network):
        return sum(0.01 * block.mid_channels for block in network.blocks)

    limit = 0.6 * milliseconds(spec)
    found = prune(spec, importance=random_importance(spec), limit=limit, measure=milliseconds)
    assert 0.98 * limit <= milliseconds(found.spec) <= limit


def test_a_pruned_network_is_pruned_again_and_scaled():
    spec = get_spec("b0")
    state = state_arrays(build(spec, seed=0))
    once = prune(spec, importance=weight_importance(spec, state), limit=0.7 * cost(spec).macs, round_to=16)
    twice = prune(once.spec, importance=random_importance(once.spec), limit=0.4 * cost(spec).macs)
    assert cost(twice.spec).macs <= 0.4 * cost(spec).macs
    assert twice.spec.name == f"b0 pruned to {cost(twice.spec).macs / 1e6:.3g}M MACs"
    assert count_of(scale(twice.spec, width=1.5)) > count_of(twice.spec)


def test_what_cannot_be_done_is_refused_with_what_can():
    spec = get_spec("b0")
    importance = random_importance(spec)
    with pytest.raises(BudgetError, match=r"the smallest network with these options has .*; allow that much"):
        prune(spec, importance=importance, limit=1e5)
    with pytest.raises(InputError, match="of another network"):
        prune(get_spec("b1"), importance=importance, limit=1e8)
    with pytest.raises(InputError, match="scope must be one of global, stage"):
        prune(spec, importance=importance, limit=1e8, scope="layer")
    with pytest.raises(InputError, match="round_to"):
        prune(spec, importance=importance, limit=1e8, round_to=0)
    with pytest.raises(InputError, match="above 0"):
        prune(spec, importance=importance, limit=float("nan"))


def test_features_that_no_classifier_reads_keep_their_number():
    spec = get_spec("b0", num_classes=0)
    found = prune(spec, importance=random_importance(spec), limit=0.5 * cost(spec).macs)
    assert found.spec.feature_channels == spec.feature_channels


def test_the_vector_width_is_a_power_of_two():
    assert vector_width() in (8, 16)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_pruned_where_they_lie(name):
    """That is, in the last stages: they take hardly any multiply-accumulates."""
    spec = get_spec(name)
    importance = random_importance(spec)
    limit = 0.85 * cost(spec).params
    found = prune(spec, importance=importance, limit=limit, count="params").spec
    assert 0.97 * limit <= cost(found).params <= limit
    same_macs = prune(spec, importance=importance, limit=cost(found).macs).spec
    assert cost(same_macs).params > cost(found).params
    with pytest.raises(InputError, match="one of macs, params"):
        prune(spec, importance=importance, limit=limit, count="bytes")
