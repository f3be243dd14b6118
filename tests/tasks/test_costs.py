"""Costs of wrong answers: how they are written, and what they decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.several.outputs import OutputSpec
from effnet.errors import InputError
from effnet.tasks import classification
from effnet.tasks.costs import Costs, check_cost, decide, read_costs, with_costs
from effnet.tasks.several import answers

NAMES = ("cat", "dog", "a:b=c", "x,y", "miss")
SPECS = (
    OutputSpec(name="pet", kind="one", classes=("cat", "dog")),
    OutputSpec(name="toy", kind="one", classes=("ball", "dog")),
    OutputSpec(name="tags", kind="many", classes=("sea", "sun")),
    OutputSpec(name="year", kind="number"),
)


def test_names_may_have_every_separator():
    found = read_costs("miss:dog=5,false:a:b=c=2.5,miss:x,y=3,false:miss=4", NAMES)
    assert found == Costs(miss=(1, 5, 1, 3, 1), false=(1, 1, 2.5, 1, 4))
    assert read_costs("", NAMES) is None
    assert check_cost("miss:dog=5") == "miss:dog=5"


@pytest.mark.parametrize(
    "text", ["dog=5", "miss:dog", "miss:dog=", "miss:=5", "miss:dog=much", "miss:dog=0", "miss:dog=-1", "miss:dog=inf",
             "miss:dog=nan", "lose:dog=5", "miss:dog=1e9", ","],
)  # fmt: skip
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(InputError, match=r"cost must be miss:NAME=COST or false:NAME=COST, .*; got '"):
        read_costs(text, NAMES)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"cost must name a class or tag of the data; got 'dgo'; did you mean 'dog'\?"):
        read_costs("miss:dgo=5", NAMES)
    with pytest.raises(InputError, match=r"got 'pet=dgo'; did you mean 'pet=dog'\?"):
        with_costs(SPECS, "miss:pet=dgo=5")
    with pytest.raises(InputError, match="once; got it twice"):
        read_costs("miss:dog=5,miss:dog=6", NAMES)


def test_an_output_is_found_by_its_column_or_by_a_name_that_it_has_alone():
    pet, toy, tags, year = with_costs(SPECS, "miss:pet=dog=5,false:ball=2,miss:tags:sun=3,false:sea=7")
    assert (pet.miss, pet.false) == ((1, 5), (1, 1))
    assert (toy.miss, toy.false) == ((1, 1), (2, 1))
    assert (tags.miss, tags.false) == ((1, 3), (7, 1))
    assert year == SPECS[3]
    with pytest.raises(InputError, match="got 'dog'; say which: pet=dog or toy=dog"):
        with_costs(SPECS, "miss:dog=5")
    with pytest.raises(InputError, match="got 'year'"):
        with_costs(SPECS, "miss:year=5")
    assert with_costs(SPECS, "") == SPECS


_values = st.floats(0.1, 10)


@settings(deadline=None)
@given(st.integers(2, 5).flatmap(lambda n: st.tuples(*[st.lists(_values, min_size=n, max_size=n)] * 3)))
def test_the_decision_has_the_least_expected_cost(drawn):
    weights, miss, false = map(np.array, drawn)
    p = weights / weights.sum()
    costs = Costs(miss=tuple(miss), false=tuple(false))
    matrix = np.outer(miss, false) * (1 - np.eye(len(p)))  # [true, answered]
    expected = p @ matrix
    assert costs.expected(p) == pytest.approx(expected)
    assert expected[decide(p[None], costs)[0]] == pytest.approx(expected.min())
    answers_of = np.arange(len(p))
    for true in answers_of:
        assert costs.of(answers_of, np.full(len(p), true)) == pytest.approx(matrix[true])


def test_costs_of_one_decide_as_the_most_probable():
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 50)
    assert (decide(rows, Costs(miss=(1.0,) * 4, false=(1.0,) * 4)) == rows.argmax(1)).all()


def test_a_prediction_has_the_class_of_least_cost_first_and_its_own_probabilities():
    task = classification.bound(costs=Costs(miss=(1.0, 5.0, 1.0), false=(1.0,) * 3))
    row = np.array([0.7, 0.2, 0.1])
    found = task.answer(row, ("a", "b", "c"), top=2, threshold=0.6)
    assert (found.labels, found.probabilities, found.known) == (("b", "a"), (0.2, 0.7), True)
    assert task.answer(row, ("a", "b", "c"), top=1, threshold=0.8).label == "unknown"
    assert task.right(row[None], np.array([1])).tolist() == [True]
    assert classification.bound(costs=None) is classification.TASK


def test_a_prediction_has_the_sums_of_parents():
    row = np.array([0.25, 0.5, 0.25])
    found = classification.TASK.answer(row, ("animal/cat", "animal/dog", "car"), top=1, threshold=0.0)
    assert found.parents == {"animal": 0.75}
    for names in (("a", "b", "c"), ("read/write head", "b", "c")):
        assert classification.TASK.answer(row, names, top=1, threshold=0.0).parents == {}


def test_a_threshold_replaces_those_of_the_outputs():
    specs = (
        OutputSpec(name="pet", kind="one", classes=("cat", "dog"), threshold=0.9),
        OutputSpec(name="toy", kind="one", classes=("ball", "bone"), miss=(1.0, 9.0)),
    )
    row = np.array([0.8, 0.2, 0.8, 0.2])

    def labels(threshold):
        return [found.label for found in answers(row, (), top=1, threshold=threshold, specs=specs).values()]

    assert labels(None) == ["unknown", "bone"]
    assert labels(0.0) == ["cat", "bone"]
    assert labels(0.85) == ["unknown", "unknown"]
