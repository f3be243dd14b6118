import random

import numpy as np
import pytest
from searched import searched, toy

from effnet.errors import InputError
from effnet.measurement.budget import Budget
from effnet.nas.algorithms.by_name import ALGORITHMS, DEFAULT, find_algorithm
from effnet.nas.spaces.macro import macro_space

EFFECTS = np.random.default_rng(5).normal(size=(7, 3))


def linear(genome):
    return float(sum(EFFECTS[place, index] for place, index in enumerate(genome)))


@pytest.fixture(scope="module")
def macro():
    return macro_space("b0", num_classes=10, channels=3, short_side=32, budget=Budget(macs=5e6))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_proposal_is_a_pure_function_of_the_completed_generations(name, macro):
    propose = find_algorithm(name)

    def score(genome):
        return 0.3 + 0.01 * len(macro.network(genome).blocks)

    history = searched(propose, macro, score, generations=5)
    assert history == searched(propose, macro, score, generations=5)
    mixed = random.Random(0).sample(history, len(history))
    found = propose(mixed, macro, number=4, seed=0)
    assert found == propose(history, macro, number=4, seed=0)
    assert propose(history, macro, number=2, seed=0) == found[:2], "a slot does not depend on later ones"
    if name != "grid":
        assert found != propose(history, macro, number=4, seed=1)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_network_is_proposed_twice_and_every_one_exists(name, macro):
    history = searched(find_algorithm(name), macro, lambda genome: float(genome[3]), generations=6)
    networks = [macro.network(trained.genome) for trained in history]
    assert None not in networks
    assert len(set(networks)) == len(history) == (len(macro.baselines) if name == "grid" else 24)
    assert all(0.95 <= macro.share(network) <= 1 for network in networks)


@pytest.mark.parametrize("name", sorted({*ALGORITHMS} - {"grid"}))
def test_every_network_of_a_small_space_is_proposed_and_then_none(name):
    space = toy(3, 3, 2, absent=lambda genome: genome[0] == genome[1])
    history = searched(find_algorithm(name), space, lambda genome: float(sum(genome)), generations=5)
    assert len({trained.genome for trained in history}) == len(history) == 12
    assert find_algorithm(name)(history, space, number=4, seed=0) == []
    assert find_algorithm(name)([], toy(2, absent=lambda genome: True), number=4, seed=0) == []


@pytest.mark.parametrize("name", sorted({*ALGORITHMS} - {"grid"}))
def test_a_training_that_diverged_teaches_nothing_and_is_not_repeated(name):
    def score(genome):
        return float("nan") if genome[0] == 0 else float(genome[1])

    history = searched(find_algorithm(name), toy(3, 3, 3, 2), score, generations=14)
    assert len({trained.genome for trained in history}) == len(history) == 54


@pytest.mark.parametrize("name", sorted({*ALGORITHMS} - {"grid", "random"}))
def test_an_algorithm_that_learns_beats_random_search(name):
    space = toy(*(3,) * 7)

    def best(algorithm):
        runs = (searched(ALGORITHMS[algorithm], space, linear, generations=15, seed=seed) for seed in range(6))
        return np.mean([max(trained.score for trained in history) for history in runs])

    assert best(name) > best("random") + 0.3


def test_the_default_finds_the_best_of_a_linear_space():
    history = searched(ALGORITHMS[DEFAULT], toy(*(3,) * 7), linear, generations=10)
    assert max(trained.score for trained in history) == pytest.approx(EFFECTS.max(axis=1).sum())


def test_an_unknown_algorithm_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"one of surrogate, .* got 'evolve'; did you mean 'evolution'\?"):
        find_algorithm("evolve")
