import numpy as np
import pytest
from searched import toy, trained

from effnet.nas.algorithms.surrogate import INITIAL, fit_ridge, propose_surrogate
from effnet.nas.spaces.genomes import encode, generator

SPACE = toy(3, 4, 2)


def history(number=30, *, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    genomes = [tuple(int(rng.integers(len(d.choices))) for d in SPACE.decisions) for _ in range(number)]
    return [trained(g, g[0] - 0.5 * g[2] + noise * rng.normal(), slot=n) for n, g in enumerate(genomes)]


def test_the_regression_is_scikit_learns():
    from sklearn.linear_model import Ridge

    past = history()
    genomes = np.array([t.genome for t in past])
    rows = encode(genomes, decisions=SPACE.decisions)
    ours = fit_ridge(past, SPACE).predict(genomes)
    theirs = [
        Ridge(alpha=prior).fit(rows, [t.score for t in past]).predict(rows) - np.mean([t.score for t in past])
        for prior in (0.3, 1.0, 3.0, 10.0, 30.0)
    ]
    assert min(np.abs(ours - prediction).max() for prediction in theirs) < 1e-9


def test_drawn_functions_spread_as_the_posterior():
    past = history(12, noise=0.3)
    ridge = fit_ridge(past, SPACE)
    genomes = np.array([(0, 0, 0), (2, 3, 1)])
    rng = generator(0, 0, 0)
    drawn = np.array([ridge.draw(genomes, rng=rng) for _ in range(4000)])
    rows = encode(genomes, decisions=SPACE.decisions) - ridge.center
    exact = rows @ ridge.root @ ridge.root.T @ rows.T
    assert np.allclose(drawn.mean(axis=0), ridge.predict(genomes), atol=5 * np.sqrt(exact.max() / 4000))
    assert np.allclose(np.cov(drawn.T), exact, rtol=0.1, atol=0.05 * exact.max())


def test_noise_widens_the_posterior():
    genomes = encode([(0, 0, 0), (2, 3, 1)], decisions=SPACE.decisions)
    ridges = [fit_ridge(history(noise=noise), SPACE) for noise in (0.001, 0.5)]
    quiet, noisy = (np.linalg.norm((genomes - ridge.center) @ ridge.root, axis=1) for ridge in ridges)
    assert (quiet < noisy / 2).all()


def test_a_training_that_was_stopped_does_not_count_as_a_bad_network():
    past = history(40, noise=0.0)
    best = np.array([(2, 0, 0)])
    stopped = [trained((2, n, 0), 2 - 5.0, generation=1, slot=n, share=1 / 9) for n in range(4)]
    whole = [trained((2, n, 0), 2 - 5.0, generation=1, slot=n) for n in range(4)]
    other = np.array([(0, 0, 0)])

    def lead(past):
        ridge = fit_ridge(past, SPACE)
        return (ridge.predict(best) - ridge.predict(other)).item()

    assert lead(past) == pytest.approx(2, abs=0.1)
    assert lead(past + stopped) == pytest.approx(2, abs=0.1)
    assert lead(past + whole) < 1


def test_scaled_networks_come_first_and_random_ones_until_there_is_enough_to_learn_from():
    baselines = ((0, 1, 1), (2, 0, 0), (1, 1, 1), (0, 0, 0))
    space = toy(3, 4, 2, baselines=baselines)
    found = propose_surrogate([], space, number=INITIAL, seed=0)
    assert found[:3] == list(baselines[:3])
    assert len(set(found)) == INITIAL
    assert propose_surrogate([], space, number=2, seed=0) == found[:2]


def test_it_then_proposes_what_was_good():
    space, rng = toy(3, 5, 5, 5), generator(0, 0, 0)
    genomes = [tuple(int(rng.integers(len(d.choices))) for d in space.decisions) for _ in range(15)]
    past = [trained(genome, float(genome[0]), slot=slot) for slot, genome in enumerate(genomes)]
    assert [genome[0] for genome in propose_surrogate(past, space, number=8, seed=0)].count(2) >= 7
