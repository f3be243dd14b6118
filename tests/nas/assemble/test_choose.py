"""The integer programme against trying every choice."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import InputError
from effnet.nas.assemble.choose import Option, best_choices

NUMBERS = st.integers(-20, 20)


@st.composite
def instances(draw):
    """Draw parts with options, limits, and groups of parts that may not all be dropped."""
    names = draw(st.sampled_from((("ms",), ("ms", "mb"), ())))
    option = st.builds(
        lambda score, changes, dropped: Option(score=score / 7, changes=changes, dropped=dropped),
        NUMBERS, st.fixed_dictionaries({name: NUMBERS.map(float) for name in names}), st.booleans(),
    )  # fmt: skip
    options = draw(st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=4))
    room = {name: float(draw(st.integers(-40, 40))) for name in names}
    cut = draw(st.integers(0, len(options)))
    groups = [list(range(cut)), list(range(cut, len(options)))]
    return options, room, [group for group in groups if group]


def allowed(options, room, groups):
    """Yield every allowed choice with its score."""
    for indices in itertools.product(*(range(len(row)) for row in options)):
        chosen = [row[index] for row, index in zip(options, indices, strict=True)]
        fits = all(sum(option.changes[name] for option in chosen) <= limit for name, limit in room.items())
        if fits and not any(all(chosen[part].dropped for part in group) for group in groups):
            yield sum(option.score for option in chosen), indices


@settings(max_examples=40, deadline=None)
@given(instances(), st.data())
def test_each_choice_is_the_best_of_those_that_differ_enough_from_all_before(instance, data):
    options, room, groups = instance
    distance = data.draw(st.integers(1, len(options)))
    found = best_choices(options, room=room, groups=groups, number=4, distance=distance)
    left = list(allowed(options, room, groups))
    scores = {indices: score for score, indices in left}
    for indices in found:
        assert scores[indices] == pytest.approx(min(score for score, _ in left), abs=1e-6)
        left = [row for row in left if sum(a != b for a, b in zip(row[1], indices, strict=True)) >= distance]
    assert len(found) == 4 or not left


def test_a_distance_beyond_the_parts_is_refused():
    with pytest.raises(InputError, match="must differ in 1 to 2 parts; got 3"):
        best_choices([[Option(score=0.0)]] * 2, room={}, distance=3)
