"""Several outputs: names of columns, labels, targets."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.several.outputs import (
    OutputSpec,
    column_names,
    label_text,
    output_spec,
    outputs_of,
    placed,
    to_targets,
    to_text,
)
from effnet.errors import DataError

SPECS = (
    OutputSpec(name="gender", kind="one", classes=("Men", "Women")),
    OutputSpec(name="tags", kind="many", classes=("desert", "sea=side", "sun")),
    OutputSpec(name="year", kind="number"),
)

_texts = st.text(min_size=1, max_size=8)
_names = st.text(st.characters(exclude_characters="=:"), min_size=1, max_size=8)


@st.composite
def specs(draw):
    found = []
    for name in draw(st.lists(_names, min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(["one", "many", "number"]))
        classes = () if kind == "number" else tuple(draw(st.lists(_texts, min_size=1, max_size=4, unique=True)))
        found.append(OutputSpec(name=name, kind=kind, classes=classes))
    return tuple(found)


@given(specs())
def test_outputs_are_read_back_from_the_names_of_their_columns(given):
    assert outputs_of(column_names(given)) == given


def test_each_output_has_its_columns_and_its_targets():
    assert [(p.columns, p.targets) for p in placed(SPECS)] == [
        (slice(0, 2), slice(0, 1)),
        (slice(2, 5), slice(1, 4)),
        (slice(5, 6), slice(4, 5)),
    ]


def test_an_unknown_value_is_nan_and_a_known_list_of_no_tags_is_zeros():
    texts = [label_text(value) for value in ({"gender=": "Women", "tags:": ["sun"]}, {"tags:": [], "year": 2011}, {})]
    found = to_targets(texts, column_names(SPECS))
    nan = np.nan
    np.testing.assert_array_equal(found, [[1, 0, 0, 1, nan], [nan, 0, 0, 0, 2011], [nan] * 5])
    said = [to_text(row, column_names(SPECS)) for row in found]
    assert said == ["gender Women; tags sun", "tags none; year 2011", "unknown"]


@pytest.mark.parametrize(
    "change",
    [{"kind": "some"}, {"scale": 0}, {"thresholds": [0.5]}, {"classes": []}, {"mean": "1"}, {"temperature": None}],
)
def test_an_output_of_a_damaged_config_is_refused(change):
    good = dataclasses.asdict(SPECS[0])
    assert output_spec(good) == SPECS[0]
    with pytest.raises(DataError, match="an output must"):
        output_spec(good | change)
