import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searched import toy, trained

from effnet.nas.spaces.genomes import Batch, crossover, encode, generator, mutate, sample
from effnet.nas.spaces.space import Decision

DECISIONS = st.lists(
    st.builds(
        lambda count, ordered, group: Decision(name="d", choices=tuple(range(count)), ordered=ordered, group=group),
        st.integers(1, 5),
        st.booleans(),
        st.sampled_from(("", "kernel", "width")),
    ),
    min_size=1,
    max_size=8,
)


@given(DECISIONS, st.integers(0, 2**63), st.integers(0, 100))
def test_the_same_key_draws_the_same_genome_of_the_space(decisions, seed, slot):
    first, again = (sample(decisions, rng=generator(seed, 3, slot)) for _ in range(2))
    assert first == again
    assert all(0 <= index < len(decision.choices) for index, decision in zip(first, decisions, strict=True))
    assert all(type(index) is int for index in first)


@given(DECISIONS, st.integers(0, 1000))
def test_a_mutation_changes_one_decision_that_has_a_choice(decisions, seed):
    rng = generator(seed, 0, 0)
    genome = sample(decisions, rng=rng)
    other = mutate(genome, decisions=decisions, rng=rng)
    changed = [place for place, pair in enumerate(zip(genome, other, strict=True)) if pair[0] != pair[1]]
    assert len(changed) == any(len(decision.choices) > 1 for decision in decisions)
    assert all(0 <= other[place] < len(decisions[place].choices) for place in changed)


def test_mutations_reach_every_neighbour_about_equally_often():
    decisions, rng = toy(2, 3).decisions, generator(0, 0, 0)
    found = [mutate((0, 1), decisions=decisions, rng=rng) for _ in range(400)]
    counts = {neighbour: found.count(neighbour) for neighbour in set(found)}
    assert set(counts) == {(1, 1), (0, 0), (0, 2)}
    assert counts[1, 1] == pytest.approx(200, abs=40)


@given(DECISIONS, st.integers(0, 1000))
def test_a_crossover_takes_every_choice_from_a_parent(decisions, seed):
    rng = generator(seed, 0, 0)
    first, second = sample(decisions, rng=rng), sample(decisions, rng=rng)
    child = crossover(first, second, rng=rng)
    assert all(c in (a, b) for a, b, c in zip(first, second, child, strict=True))
    assert {crossover((0,) * 60, (1,) * 60, rng=rng) for _ in range(3)}.isdisjoint({(0,) * 60, (1,) * 60})


@given(DECISIONS)
def test_different_genomes_have_different_numbers(decisions):
    genomes = list(itertools.islice(itertools.product(*(range(len(d.choices)) for d in decisions)), 200))
    rows = encode(genomes, decisions=decisions)
    assert len(np.unique(rows, axis=0)) == len(genomes)
    assert np.array_equal(rows[:1], encode(genomes[:1], decisions=decisions))


def test_ordered_choices_are_one_number_others_one_hot_and_groups_follow_as_sums():
    ordered = Decision(name="repeats", choices=(1, 2, 3), ordered=True, group="r")
    kind = Decision(name="kind", choices=("a", "b", "c"))
    rows = encode([(0, 2, 1), (2, 0, 2)], decisions=(ordered, kind, ordered))
    assert rows[:, :5].tolist() == [[-1, 0, 0, 1, 0], [1, 1, 0, 0, 1]]
    assert rows[:, 5].tolist() == [-2, 4]


def test_a_batch_takes_no_network_twice_whatever_its_genome():
    batch = Batch([trained((0, 0), 0.5)], toy(2, 3, absent=lambda genome: genome[1] == 2))
    taken = [batch.takes(genome) for genome in ((0, 0), (0, 2), (0, 1), (0, 1), (1, 0))]
    assert taken == [False, False, True, False, True]
    assert batch.chosen == [(0, 1), (1, 0)]
    batch = Batch([trained((2, 0), 0.5)], toy(3, 3, alike=True))
    assert [batch.takes(genome) for genome in ((0, 0), (0, 1), (2, 1), (1, 2))] == [True, False, False, True]


def test_the_last_genomes_of_a_small_space_are_found_among_many_that_do_not_exist():
    space = toy(10, 10, 10, absent=lambda genome: sum(genome) < 26)
    batch = Batch([], space)
    while batch.takes_random(generator(0, 0, len(batch.chosen))):
        pass
    assert len(batch.chosen) == len(set(batch.chosen)) == 4
