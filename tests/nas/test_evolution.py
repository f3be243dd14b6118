from searched import toy, trained

from effnet.nas.algorithms.evolution import propose_evolution

SPACE = toy(*(6,) * 10)


def test_children_differ_from_the_youngest_networks_in_one_decision():
    """The oldest network is the best by far, but it has left the population."""
    past = [trained((5,) * 10, 100.0)]
    past += [trained((n % 2,) * 5 + (n // 2 % 3,) * 5, float(n), generation=1 + n // 4, slot=n % 4) for n in range(12)]
    found = propose_evolution(past, SPACE, number=12, seed=0)
    assert len(found) == 12
    for child in found:
        strange = [index for place, index in enumerate(child) if index not in ((0, 1) if place < 5 else (0, 1, 2))]
        assert len(strange) <= 1
    assert any(5 in child or 4 in child or 3 in child for child in found)


def test_without_a_population_genomes_are_random():
    found = propose_evolution([trained((0,) * 10, 1.0)], SPACE, number=30, seed=0)
    assert {index for child in found for index in child} == set(range(6))
