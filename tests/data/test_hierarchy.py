"""Parents of classes by the "/" in their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.hierarchy import check_hierarchy, levels, parents
from effnet.errors import DataError


def test_parents_sum_the_classes_below_them():
    names = ("animal/cat", "animal/dog/husky", "animal/dog/poodle", "car", "plant/tree")
    assert parents(names) == {"animal": (0, 1, 2), "animal/dog": (1, 2), "plant": (4,)}
    assert list(parents(names)) == ["animal", "animal/dog", "plant"]
    animal = "animal"
    assert levels(names)[0] == (animal, animal, animal, "car", "plant")
    assert levels(names)[1] == ("animal/cat", "animal/dog", "animal/dog", "car", "plant/tree")
    assert parents(("cat", "dog")) == {}


def test_a_class_with_classes_below_it_is_one_of_them():
    assert parents(("animal/dog", "animal", "animal/dog/husky")) == {"animal": (0, 1, 2), "animal/dog": (0, 2)}
    assert levels(("animal/dog", "animal", "car")) == (("animal", "animal", "car"),)


@pytest.mark.parametrize("name", ["a//b", "/a", "a/", "/", "a/ /b", "//"])
def test_an_empty_part_is_refused_and_makes_no_parent(name):
    with pytest.raises(DataError, match="a class with / in its name is a path such as animal/dog"):
        check_hierarchy(name)
    assert parents((name, "b")) == {}
    assert levels((name, "b")) == ()
    assert check_hierarchy("a/b") == "a/b"
    assert check_hierarchy("a") == "a"


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True, max_size=12))
def test_parents_are_the_beginnings_of_names(names):
    beginnings = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    assert parents(names) == {
        parent: tuple(i for i, name in enumerate(names) if f"{name}/".startswith(f"{parent}/")) for parent in beginnings
    }
