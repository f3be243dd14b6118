"""The parts of a network: what they keep of it, and that they compute what it does without the rest."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked import masked_
from strategies import build_trained, state_arrays

from effnet import cost, get_spec, scale
from effnet.arch.channels import kept_spec
from effnet.arch.scale import with_eca
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.errors import SpecError
from effnet.nas.spaces.elastic import Elastic, elastic, slices_of, subnet
from effnet.nas.spaces.space import Space
from effnet.nn.network import Network, build
from effnet.weights.morph import transfer

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 32


def tiny(name="b0") -> ArchSpec:
    """Return a narrow network of five stages whose larger kernels are 7."""
    spec = with_eca("b0") if name == "eca" else get_spec(name)
    spec = scale(dataclasses.replace(spec, num_classes=5), width=0.3, depth=1.0, resolution=SIDE)
    return dataclasses.replace(spec, stages=tuple(tuple(map(with_larger_kernel, row)) for row in spec.stages[:5]))


def with_larger_kernel(block: BlockSpec) -> BlockSpec:
    return dataclasses.replace(block, kernel_size=7) if block.kernel_size == 5 else block


def draw_genome(space: Elastic, seed: int) -> tuple[int, ...]:
    rng = np.random.default_rng(seed)
    return tuple(int(rng.integers(len(decision.choices))) for decision in space.decisions)


def alone(spec: ArchSpec, state: dict[str, np.ndarray]) -> Network:
    """Return a network built alone from a spec, with these weights."""
    network = build(spec)
    missing, unknown = network.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()}, strict=False)
    assert not unknown
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def test_the_decisions_are_those_that_a_network_leaves_open():
    space = elastic(get_spec("b0"))
    found = {decision.name: decision.choices for decision in space.decisions}
    assert found["stage 5 repeats"] == (1, 2, 3)
    assert found["stage 5 kernel"] == (3, 5)
    assert found["stage 5 width"] == (0.5, 0.75, 1.0)
    assert "stage 1 width" not in found  # no expansion
    assert "stage 1 repeats" not in found  # one block
    assert "stage 2 kernel" not in found  # 3 already
    assert all(decision.ordered for decision in space.decisions)
    assert not any("kernel" in decision.name for decision in elastic("v2_s").decisions)  # 3 everywhere
    edgetpu = {decision.name for decision in elastic("edgetpu_l").decisions}
    assert "stage 1 repeats" not in edgetpu  # its blocks have no shortcut and cannot be left out


def test_the_whole_network_is_the_base_and_every_smaller_choice_costs_less():
    space = elastic(tiny())
    assert space.part(space.largest).spec == space.base
    before = cost(space.base)
    for index in range(len(space.decisions)):
        genome = list(space.largest)
        genome[index] = 0
        found = cost(space.part(tuple(genome)).spec)
        assert found.macs < before.macs, space.decisions[index].name
    assert cost(space.part(space.smallest).spec).macs < before.macs


def test_a_budget_rules_parts_out_at_both_ends():
    base = tiny()
    most = cost(base).macs

    def share(spec: ArchSpec) -> float:
        return cost(spec).macs / (0.7 * most)

    space: Space = elastic(base, share=share, least=0.8)
    free = elastic(base)
    assert space.network(free.largest) is None
    assert space.network(free.smallest) is None
    found = [space.network(draw_genome(free, seed)) for seed in range(60)]
    assert any(found)
    assert all(0.8 <= share(spec) <= 1 for spec in found if spec)
    uniform = [space.network(genome) for genome in space.baselines]
    assert uniform
    assert all(uniform)
    assert sorted(uniform, key=lambda spec: -cost(spec).macs) == uniform


@settings(max_examples=16, deadline=None)
@given(st.sampled_from(("b0", "lite0", "v2_b0", "eca", "edgetpu_s")), st.integers(0, 999))
def test_a_part_computes_what_the_network_does_without_the_rest(name, seed):
    """Channels are silenced, blocks passed over and kernels set to zero around their centres, all in the network."""
    base = tiny(name)
    network = build_trained(base, resolution=SIDE)
    importance = {"stages.1.0.mid": np.random.default_rng(seed).normal(size=base.stages[1][0].mid_channels)}
    space = elastic(base, importance=importance if seed % 2 else None)
    genome = draw_genome(space, seed)
    part = space.part(genome)
    spec, state = subnet(space, genome=genome, state=state_arrays(network))
    silent = copy.deepcopy(network)
    for name_, where in slices_of(space, part).items():
        if where.crop and name_.endswith("depthwise.conv.weight"):
            kernel = silent.get_parameter(where.source)
            hole = torch.zeros_like(kernel)
            hole[..., where.crop : -where.crop, where.crop : -where.crop] = 1
            kernel.data *= hole
    masked_(silent, base, part.keep)
    x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = alone(spec, state)(x), silent(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(expected.abs().max())))


def test_narrower_and_shorter_parts_have_the_weights_of_a_pruned_network():
    base = tiny()
    space = elastic(base, kernels=())
    state = state_arrays(build_trained(base, resolution=SIDE))
    for seed in range(5):
        genome = draw_genome(space, seed)
        part = space.part(genome)
        expected = transfer(state, source=base, target=kept_spec(base, part.keep), keep=part.keep)
        spec, found = subnet(space, genome=genome, state=state)
        assert spec == kept_spec(base, part.keep)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_smaller_width_keeps_the_most_important_channels_of_the_larger():
    base = tiny()
    values = np.random.default_rng(0).normal(size=base.stages[2][0].mid_channels)
    space = elastic(base, importance={"stages.2.0.mid": values})
    index = [decision.name for decision in space.decisions].index("stage 3 width")
    kept = []
    for choice in range(3):
        genome = list(space.largest)
        genome[index] = choice
        kept.append(space.part(tuple(genome)).keep.stages[2][0].mid)
    assert set(kept[0]) < set(kept[1]) < set(kept[2])
    assert min(values[list(kept[0])]) > max(np.delete(values, list(kept[0])))


def test_what_is_no_elastic_network_is_refused():
    with pytest.raises(SpecError, match=r"widths must be shares .* at most 1; got \(0.5, 1.2\)"):
        elastic("b0", widths=(0.5, 1.2))
    with pytest.raises(SpecError, match=r"kernels must be odd and at least 3; got \(1, 3\)"):
        elastic("b0", kernels=(1, 3))
    base = tiny()
    plain = dataclasses.replace(base, stages=base.stages[:1])
    with pytest.raises(SpecError, match="must have a choice of repeats, widths or kernels"):
        elastic(plain)
