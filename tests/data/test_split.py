from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.labels import check_classes
from effnet.data.sources.source import Part
from effnet.data.split import arrange, stratified_split
from effnet.errors import DataError

counts_by_class = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 40), min_size=1, max_size=6)


def labels_of(counts: dict[str, int], *, shuffle: int = 0) -> list[str]:
    labels = [name for name, count in counts.items() for _ in range(count)]
    return [labels[i] for i in np.random.default_rng(shuffle).permutation(len(labels))]


@settings(max_examples=40, deadline=None)
@given(
    counts=counts_by_class,
    seed=st.integers(0, 2**40),
    names=st.sampled_from([("val",), ("val", "test")]),
)
def test_a_split_is_complete_disjoint_stratified_and_seeded(
    counts: dict[str, int], seed: int, names: tuple[str, ...]
) -> None:
    labels = labels_of(counts)
    split = stratified_split(labels, seed=seed, names=names)
    again = stratified_split(labels, seed=seed, names=names)
    assert set(split) == {"train", *names}
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(len(labels)))
    for name, indices in split.items():
        np.testing.assert_array_equal(indices, again[name])
        assert indices.dtype == np.int64
        found = Counter(labels[i] for i in indices)
        for label, count in counts.items():
            if name == "train":
                assert found[label] >= 1
            elif count > len(names):
                assert found[label] == max(1, int(0.15 * count + 0.5))
            else:
                assert found[label] == (1 if name == names[-1] and count > 1 else 0)


@settings(max_examples=30, deadline=None)
@given(counts=counts_by_class, seed=st.integers(0, 99))
def test_a_new_class_leaves_the_others_as_they_were(counts: dict[str, int], seed: int) -> None:
    labels = labels_of(counts)
    before = stratified_split(labels, seed=seed, names=("val", "test"))
    after = stratified_split([*labels, *["a new class"] * 9], seed=seed, names=("val", "test"))
    for name, indices in before.items():
        np.testing.assert_array_equal(after[name][after[name] < len(labels)], indices)


def test_another_seed_gives_another_split() -> None:
    labels = ["cat"] * 50 + ["dog"] * 50
    first, second = (stratified_split(labels, seed=s, names=("val", "test"))["test"] for s in (0, 1))
    assert first.tolist() != second.tolist()


def part(*labels: str, prefix: str = "") -> Part:
    return Part(sources=tuple(f"{prefix}{i}.png" for i in range(len(labels))), labels=labels)


def test_given_splits_are_kept_and_missing_ones_carved_from_train() -> None:
    train = part(*["a"] * 20, *["b"] * 20, prefix="train/")
    val, test = part("a", "b", prefix="val/"), part("b", "a", prefix="test/")
    parts, _, notes = arrange({"train": train, "val": val, "test": test}, seed=0)
    assert (parts["train"], parts["val"], parts["test"]) == (train, val, test)
    assert "as given" in notes[0]
    parts, _, notes = arrange({"train": train, "val": val}, seed=0)
    assert parts["test"] == val
    assert Counter(parts["val"].labels) == {"a": 3, "b": 3}
    assert set(parts["val"].sources) | set(parts["train"].sources) == set(train.sources)
    assert "given val is the held-out test" in notes[0]
    parts, _, notes = arrange({"train": train, "test": test}, seed=0)
    assert parts["test"] == test
    assert len(parts["val"].sources) == 6
    assert "no val split" in notes[0]
    parts, _, notes = arrange({"train": train, "val": Part(sources=(), labels=())}, seed=5)
    assert [len(parts[name].sources) for name in ("train", "val", "test")] == [28, 6, 6]
    assert "70% train, 15% val, 15% test, stratified with seed 5" in notes[0]


def test_too_few_images_to_hold_out_are_an_error() -> None:
    with pytest.raises(DataError, match="hold some out for val: 4 images in 2 classes"):
        arrange({"": part("a", "a", "b", "b")}, seed=0)
    with pytest.raises(DataError, match="train must hold images"):
        arrange({"val": part("a")}, seed=0)


def test_classes_are_checked() -> None:
    parts = {"train": part("b", "a", "c"), "val": part("a", "b"), "test": part("b", "a")}
    names, notes = check_classes(parts, strict=False)
    assert names == ("a", "b", "c")
    assert notes == ["Classes with fewer than 2 images are in train only and cannot be measured: c."]
    with pytest.raises(DataError, match=r"strict needs at least 2 images per class.*: c"):
        check_classes(parts, strict=True)
    with pytest.raises(DataError, match=r"every class must have images in train.*: x, y"):
        check_classes({**parts, "val": part("y"), "test": part("x")}, strict=False)
    with pytest.raises(DataError, match=r"at least two classes are needed, received 1 \(a\)"):
        check_classes({"train": part("a", "a")}, strict=False)
