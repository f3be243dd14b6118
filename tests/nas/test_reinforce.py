import numpy as np
import pytest
from searched import toy, trained

from effnet.nas.algorithms.reinforce import _log_softmax, _policy, _slope, propose_reinforce


def test_the_slope_is_that_of_the_clipped_objective():
    """Finite differences of PPO's objective (Schulman et al. 2017, eq. 7) plus the entropy."""
    rng = np.random.default_rng(0)
    logits = np.array([[0.3, -0.2, 0.1], [0.5, 0.0, -np.inf], [0.0, -np.inf, -np.inf]])
    finite = np.isfinite(logits)
    before = _log_softmax(np.where(finite, logits + 0.2 * rng.normal(size=logits.shape), -np.inf))
    genomes = np.array([(0, 1, 0), (2, 0, 0), (1, 1, 0), (0, 0, 0)])
    taken, advantage = genomes[:, :, None] == np.arange(3), np.array([1.5, -1.0, 0.7, -0.3])

    def objective(values):
        logs = _log_softmax(values)
        picked = np.array([[logs[d, i] - before[d, i] for d, i in enumerate(g)] for g in genomes])
        ratio = np.exp(picked.sum(axis=1))
        clipped = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
        return clipped.mean() - 0.02 * np.sum(np.exp(logs[finite]) * logs[finite])

    slope = _slope(logits, before, taken, advantage)
    for place in zip(*np.nonzero(finite), strict=True):
        step = np.zeros_like(logits)
        step[place] = 1e-6
        numeric = (objective(logits + step) - objective(logits - step)) / 2e-6
        assert slope[place] == pytest.approx(numeric, abs=1e-6)


def test_rewarded_choices_become_likelier_and_absent_ones_stay_impossible():
    space = toy(3, 2, 1)
    past = []
    rng = np.random.default_rng(0)
    for generation in range(12):
        genomes = [(int(rng.integers(3)), int(rng.integers(2)), 0) for _ in range(4)]
        past += [trained(g, float(g[0] == 1), generation, slot) for slot, g in enumerate(genomes)]
    chances = np.exp(_log_softmax(_policy(past, space.decisions)))
    assert chances[0, 1] > 0.6
    assert chances.sum(axis=1) == pytest.approx(1)
    assert chances[1, 2] == chances[2, 1] == 0


def test_it_draws_again_instead_of_a_network_that_does_not_exist():
    space = toy(4, 4, absent=lambda genome: genome[0] != 3)
    assert sorted(propose_reinforce([], space, number=9, seed=0)) == [(3, n) for n in range(4)]
