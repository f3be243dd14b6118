"""Parents of classes by the "/" in their names."""

from effnet.data.hierarchy import levels, parents


def test_parents_have_their_leaves():
    names = ("animal/cat/siamese", "animal/cat/tabby", "animal/dog", "car")
    assert parents(names) == {"animal": (0, 1, 2), "animal/cat": (0, 1)}
    assert levels(names) == (("animal", "animal", "animal", "car"), ("animal/cat", "animal/cat", "animal/dog", "car"))


def test_a_class_may_be_a_parent_itself():
    assert parents(("animal/dog", "animal", "car")) == {"animal": (0, 1)}
    assert levels(("animal/dog", "animal", "car")) == (("animal", "animal", "car"),)


def test_names_without_parts_have_no_parents():
    assert parents(("cat", "/", "/dog", "a//b", "c/")) == {}
    assert levels(("cat", "/", "/dog", "a//b", "c/")) == ()
