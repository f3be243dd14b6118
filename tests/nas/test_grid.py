import numpy as np
import pytest
from searched import searched, toy

from effnet.arch.catalog import get_spec
from effnet.arch.cost import layer_costs
from effnet.arch.scale import scale
from effnet.errors import InputError
from effnet.nas.algorithms.grid import answer, equal_cost_grid, literal_grid, propose_grid, scaled_point


def macs(spec):
    return sum(layer.macs for layer in layer_costs(spec))


@pytest.fixture(scope="module")
def grid():
    return equal_cost_grid("b0")


def test_the_published_coefficients_are_nominally_but_not_exactly_twice_the_cost():
    point = scaled_point("b0", alpha=1.2, beta=1.1, gamma=1.15)
    assert point.product == pytest.approx(1.92, abs=0.001)
    assert point.ratio == pytest.approx(2.573, abs=5e-4)


@pytest.mark.parametrize(
    "name, make",
    [("b0", equal_cost_grid), ("lite0", equal_cost_grid), ("v2_b0", equal_cost_grid), ("b0", literal_grid)],
)
def test_every_network_of_the_grid_has_equal_cost_and_is_another(name, make):
    points, base = make(name), get_spec(name)
    assert 12 <= len(points) <= 30
    assert len({point.spec for point in points}) == len(points)
    for point in points:
        assert macs(point.spec) / macs(base) == pytest.approx(2, rel=0.03)
        assert point.ratio == pytest.approx(macs(point.spec) / macs(base))
        assert scale(base, phi=1, alpha=point.alpha, beta=point.beta, gamma=point.gamma) == point.spec
        assert min(point.alpha, point.gamma) >= 1
    assert [point.published for point in points] == [make is equal_cost_grid] + [False] * (len(points) - 1)


def test_cost_may_be_any_measure():
    def latency(spec):
        return sum(layer.params for layer in layer_costs(spec)) / 1e6 + len(spec.blocks)

    points = equal_cost_grid("b0", measure=latency)
    assert len(points) >= 8
    assert all(latency(point.spec) / latency(get_spec("b0")) == pytest.approx(2, rel=0.03) for point in points)


def test_the_literal_grid_holds_multiples_of_its_step():
    for point in literal_grid("b0", step=0.1):
        assert all(round(10 * value, 6).is_integer() for value in (point.alpha, point.beta, point.gamma))
    with pytest.raises(InputError, match=r"between 0\.01 and 1; got 0"):
        literal_grid("b0", step=0)


TOP = (1.3, 1.07)


def quadratic(point):
    return 0.8 - 0.1 * np.log(point.alpha / TOP[0]) ** 2 - 0.2 * np.log(point.gamma / TOP[1]) ** 2


def test_the_answer_is_the_top_of_the_surface_at_the_grids_cost(grid):
    found = answer("b0", grid, scores={index: [quadratic(point)] for index, point in enumerate(grid)})
    assert quadratic(found.best) == max(map(quadratic, grid))
    assert found.fitted
    assert (found.alpha, found.gamma) == pytest.approx(TOP, abs=0.01)
    assert scaled_point("b0", alpha=found.alpha, beta=found.beta, gamma=found.gamma).ratio == pytest.approx(2, rel=0.03)


def test_a_surface_without_a_top_in_the_grid_is_answered_by_its_best_network(grid):
    found = answer("b0", grid, scores={index: [0.7 + 0.1 * point.gamma] for index, point in enumerate(grid)})
    assert not found.fitted
    assert (found.alpha, found.beta, found.gamma) == (found.best.alpha, found.best.beta, found.best.gamma)
    assert found.gamma == max(point.gamma for point in grid)


def test_a_gain_within_the_noise_of_the_seeds_does_not_beat_the_published_one(grid):
    def with_gain(gain, noise):
        scores = {index: [0.70 - noise, 0.70 + noise] for index in range(len(grid))}
        return answer("b0", grid, scores=scores | {3: [0.70 + gain - noise, 0.70 + gain + noise]})

    assert with_gain(0.02, 0.001).beats_published
    small = with_gain(0.005, 0.01)
    assert not small.beats_published
    assert small.gain == pytest.approx(0.005)
    assert small.best == grid[3]


def test_the_interval_is_that_of_a_pooled_t_test(grid):
    from scipy.stats import ttest_ind

    ours, theirs = [0.71, 0.74, 0.73], [0.70, 0.72, 0.69]
    found = answer("b0", grid[:2], scores={0: theirs, 1: ours})
    interval = ttest_ind(ours, theirs).confidence_interval()
    assert (found.gain - found.noise, found.gain + found.noise) == pytest.approx(tuple(interval))
    assert found.beats_published == (interval.low > 0)


def test_one_seed_has_no_noise_and_one_lucky_training_does_not_win(grid):
    found = answer("b0", grid, scores={0: [0.7], 2: [0.8]})
    assert (found.noise, found.beats_published, found.fitted) == (None, False, False)
    assert answer("b0", grid, scores={0: [0.7, 0.7], 1: [0.71, 0.71], 2: [0.9]}).best == grid[1]
    assert answer("b0", grid, scores={2: [0.8]}).gain is None
    with pytest.raises(InputError, match="at least one network"):
        answer("b0", grid, scores={1: []})


def test_the_proposals_are_the_scaled_networks_of_the_space():
    space = toy(3, 3, baselines=((1, 1), (0, 2), (2, 0)), absent=lambda genome: genome == (0, 2))
    assert [t.genome for t in searched(propose_grid, space, lambda g: 0.0, generations=3, number=1)] == [(1, 1), (2, 0)]
