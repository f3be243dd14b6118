import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.scale import scale
from effnet.errors import SpecError
from effnet.measurement.budget import Budget
from effnet.nas.spaces.genomes import generator, sample
from effnet.nas.spaces.macro import macro_space
from effnet.nas.spaces.stages import assemble
from effnet.nas.spaces.width import figures_of, solve_width


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((8, 28, 32, 224)), st.floats(5, 8.5), st.sampled_from(("macs", "params")))
def test_a_network_uses_95_to_100_percent_of_the_budget_or_no_width_does(seed, side, magnitude, figure):
    """If none is found, none of 60 widths in each rounding lies in that range."""
    limit = 10**magnitude / (20 if figure == "params" else 1)
    space = macro_space("b0", num_classes=10, channels=3, short_side=side, budget=Budget(**{figure: limit}))
    genome = sample(space.decisions, rng=generator(seed, 0, 0))
    network = space.network(genome)
    if network is not None:
        assert 0.95 * limit <= getattr(cost(network), figure) <= limit
        return
    for divisor in (8, 4, 2):
        for width in np.geomspace(0.02, 20, 60):
            built = assemble(space.base, space.choices(genome), short_side=side, width=width, divisor=divisor)
            assert built is None or not 0.95 <= space.share(built) <= 1


def test_multiples_of_eight_are_preferred():
    base = get_spec("b0")
    found = solve_width(lambda w, d: scale(base, width=w) if d == 8 else None, share=lambda s: cost(s).macs / 300e6)
    assert found is not None
    assert all(block.out_channels % 8 == 0 for block in found.blocks)
    assert 285e6 <= cost(found).macs <= 300e6


def test_a_share_that_jumps_over_the_range_has_no_width_and_ends():
    base = get_spec("b0")
    assert solve_width(lambda w, d: scale(base, width=w), share=lambda s: 0.9 if s.stem.channels < 40 else 1.1) is None
    assert solve_width(lambda w, d: scale(base, width=w), share=lambda s: 1e-9) is None
    assert solve_width(lambda w, d: scale(base, width=w), share=lambda s: 1e9) is None
    assert solve_width(lambda w, d: None, share=lambda s: 1.0) is None
    assert solve_width(lambda w, d: scale(base, width=w), share=lambda s: 2.0 * (s.stem.channels > 40)) is None


def test_figures_are_analytic_or_predicted():
    spec, found = get_spec("b0"), cost("b0")
    budget = Budget(latency_ms=5, params=1e7, macs=1e9, size_mb=30, memory_mb=100)
    figures = figures_of(spec, budget=budget, predictors={"latency_ms": lambda s: len(s.blocks) / 2}, precision="int8")
    assert figures["latency_ms"] == 8
    assert (figures["params"], figures["macs"]) == (found.params, found.macs)
    assert figures["size_mb"] == found.weight_bytes("int8") / 1e6
    assert figures["memory_mb"] == figures["size_mb"] + found.peak_memory_bytes / 1e6
    assert figures_of(spec, budget=Budget(macs=1)) == {"macs": found.macs}
    assert figures_of(spec, budget=Budget(size_mb=1), predictors={"size_mb": lambda s: 7.0}) == {"size_mb": 7.0}
    with pytest.raises(SpecError, match="limit of latency_ms needs a predictor"):
        figures_of(spec, budget=Budget(latency_ms=5))
