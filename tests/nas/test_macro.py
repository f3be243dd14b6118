import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import cost
from effnet.errors import BudgetError, InputError, SpecError
from effnet.measurement.budget import Budget
from effnet.nas.spaces.genomes import generator, sample
from effnet.nas.spaces.macro import macro_space


def space_of(side=32, base="b0", **options):
    budget = options.pop("budget", Budget(macs=5e6))
    return macro_space(base, num_classes=7, channels=1, short_side=side, budget=budget, **options)


SPACES = {
    "digits": space_of(8, budget=Budget(params=20_000)),
    "CIFAR": space_of(32),
    "photographs": space_of(224, budget=Budget(macs=100e6)),
    "V2": space_of(224, base="v2_b0", budget=Budget(size_mb=8)),
}


@given(st.sampled_from(sorted(SPACES)), st.integers(0, 10**6))
def test_every_network_is_valid_and_saved_and_fits_the_images(name, seed):
    space = SPACES[name]
    genome = sample(space.decisions, rng=generator(seed, 0, 0))
    network = space.network(genome)
    if network is None:
        return
    assert 0.95 <= space.share(network) <= 1
    assert spec_from_dict(spec_to_dict(network)) == network
    assert (network.num_classes, network.in_channels, network.padding) == (7, 1, "symmetric")
    assert network.resolution in space.decisions[0].choices
    assert -(-network.resolution // network.total_stride) >= 2
    assert "searched" in network.title or genome in space.baselines


@pytest.mark.parametrize("name", SPACES)
def test_most_genomes_have_networks_of_their_own_names(name):
    space = SPACES[name]
    networks = [space.network(sample(space.decisions, rng=generator(1, 0, slot))) for slot in range(40)]
    found = {network for network in networks if network is not None}
    assert len(found) >= 25
    assert len({network.name for network in found}) == len(found)


@pytest.mark.parametrize("name", SPACES)
def test_the_baselines_are_uniformly_scaled_networks_at_the_budget(name):
    space = SPACES[name]
    networks = [space.network(genome) for genome in space.baselines]
    assert 2 <= len(networks) <= 24
    for network in networks:
        assert 0.95 <= space.share(network) <= 1
        assert "searched" not in network.title
        kernels = [blocks[0].kernel_size for blocks in network.stages]
        assert kernels == [blocks[0].kernel_size for blocks in space.base.stages][: len(kernels)]
    assert len({network.name for network in networks}) == len(networks)


def test_several_limits_bind_together_and_latency_is_predicted():
    def latency(spec):
        return cost(spec).macs / 1e6 + len(spec.blocks) / 10

    budget = Budget(latency_ms=8, params=300_000)
    space = space_of(budget=budget.with_margin(), predictors={"latency_ms": latency})
    networks = [space.network(sample(space.decisions, rng=generator(0, 0, slot))) for slot in range(20)]
    shares = [(latency(n) / 7.2, cost(n).params / 300_000) for n in networks if n is not None]
    assert len(shares) >= 10
    assert all(max(pair) <= 1 and max(pair) >= 0.95 for pair in shares)
    assert {pair[0] > pair[1] for pair in shares} == {True, False}
    with pytest.raises(SpecError, match="needs a predictor"):
        space_of(budget=budget)


def test_without_scaling_cost_varies_around_the_budget_as_in_the_published_search():
    space = space_of(scaled=False)
    networks = [space.network(sample(space.decisions, rng=generator(0, 0, slot))) for slot in range(40)]
    shares = [space.share(network) for network in networks if network is not None]
    assert min(shares) < 0.8
    assert max(shares) > 1.25


@pytest.mark.parametrize(
    "side, budget", [(8, Budget(params=100)), (224, Budget(macs=10_000)), (32, Budget(size_mb=0.001))]
)
def test_a_budget_below_the_smallest_network_is_refused_with_what_that_needs(side, budget):
    said = r"no network of this search has .*: the smallest is .*, which needs .* or more;"
    with pytest.raises(BudgetError, match=said):
        space_of(side, budget=budget)


def test_a_budget_that_no_network_uses_is_refused():
    with pytest.raises(
        InputError, match=r"must not be far above the largest network of a search, B0, .* 0\.00% of MACs"
    ):
        space_of(8, budget=Budget(macs=9e14))


def test_a_search_needs_a_budget_and_a_base_of_mbconv_blocks():
    with pytest.raises(InputError, match="needs a device budget; got none"):
        space_of(budget=Budget())
    with pytest.raises(SpecError, match="must be made of MBConv blocks"):
        space_of(base="resnet18")
