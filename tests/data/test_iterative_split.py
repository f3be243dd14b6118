"""Iterative stratification: equal to the algorithm as published, and what the product adds to it."""

import csv
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.datasets import read_dataset
from effnet.data.several.iterative_split import iterative_split
from effnet.data.several.outputs import SEVERAL, label_text

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def published(strata, *, seed, shares):
    """Return the splits as in algorithm 1 of Sechidis et al. 2011, line by line, in plain Python.

    What the paper leaves open is decided as in effnet: of equally rare labels the first by name, the order of the
    images of a label, and the generator that breaks ties.
    """
    rng = np.random.default_rng(seed)
    left = set(range(len(strata)))
    labels = sorted({label for some in strata for label in some})
    images_of = {label: {i for i in left if label in strata[i]} for label in labels}
    wanted = {name: len(strata) * share for name, share in shares.items()}
    wanted_of = {label: {name: len(images_of[label]) * share for name, share in shares.items()} for label in labels}
    chosen = {name: [] for name in shares}

    def put(image, lacking):
        most = [name for name in shares if lacking[name] == max(lacking.values())]
        if len(most) > 1:
            most = [name for name in most if wanted[name] == max(wanted[other] for other in most)]
        name = most[0] if len(most) == 1 else list(shares)[rng.choice([list(shares).index(other) for other in most])]
        chosen[name].append(image)
        left.discard(image)
        wanted[name] -= 1
        for label in strata[image]:
            wanted_of[label][name] -= 1

    while remaining := {label: len(images_of[label] & left) for label in labels if images_of[label] & left}:
        rarest = min(remaining, key=lambda label: (remaining[label], label))
        order = np.random.default_rng((seed, crc32(rarest.encode()))).permutation(sorted(images_of[rarest]))
        for image in order.tolist():
            if image in left:
                put(image, wanted_of[rarest])
    for image in sorted(left):
        put(image, wanted)
    return {name: sorted(some) for name, some in chosen.items()}


labelled = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=4, unique=True), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None)
@given(labelled, st.integers(0, 2**32 - 1))
def test_the_split_is_that_of_the_paper_but_that_train_lacks_no_label(strata, seed):
    found = iterative_split(strata, seed=seed, shares=SHARES)
    expected = published(strata, seed=seed, shares=SHARES)
    taught = {label for i in expected["train"] for label in strata[i]}
    if taught == {label for some in strata for label in some}:
        assert {name: some.tolist() for name, some in found.items()} == expected
    assert {label for i in found["train"] for label in strata[i]} == {label for some in strata for label in some}
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(strata)))
    assert all(some.dtype == np.int64 for some in found.values())


def drawn(count, num_labels, *, seed=0):
    """Return strata with rare and frequent labels."""
    rng = np.random.default_rng(seed)
    has = rng.random((count, num_labels)) < np.geomspace(0.003, 0.4, num_labels)
    return [tuple(f"label{number:03d}" for number in np.flatnonzero(row)) for row in has]


def deviations(strata, split):
    """Return how far the share of each label's images in val and test is from 15 %."""
    labels = sorted({label for some in strata for label in some})
    has = np.array([[label in some for label in labels] for some in strata])
    return np.array([abs(has[split[name]].sum(0) / has.sum(0) - 0.15) for name in ("val", "test")])


def test_every_label_has_its_share_in_val_and_test():
    strata = drawn(3000, 40)
    split = iterative_split(strata, seed=3, shares=SHARES)
    numbers = np.array([sum(label in some for some in strata) for label in sorted({x for s in strata for x in s})])
    assert (deviations(strata, split) <= np.maximum(2 / numbers, 0.01)).all()  # two images, or 1 %
    assert [len(split[name]) for name in SHARES] == [pytest.approx(3000 * share, abs=15) for share in SHARES.values()]


@settings(max_examples=40, deadline=None)
@given(labelled, st.integers(0, 99), st.data())
def test_groups_stay_together(strata, seed, data):
    numbers = data.draw(st.lists(st.integers(0, 12), min_size=len(strata), max_size=len(strata)))
    groups = {i: number for i, number in enumerate(numbers) if number < 10}
    split = iterative_split(strata, seed=seed, shares=SHARES, groups=groups)
    side = {i: name for name, some in split.items() for i in some.tolist()}
    assert len(side) == len(strata)
    for number in set(groups.values()):
        assert len({side[i] for i in groups if groups[i] == number}) == 1
    assert {label for i in split["train"] for label in strata[i]} == {label for some in strata for label in some}


def test_groups_of_several_sizes_leave_the_shares_close():
    strata, rng = drawn(2000, 20), np.random.default_rng(0)
    groups = dict(enumerate(np.sort(rng.integers(0, 300, 2000)).tolist()))
    split = iterative_split(strata, seed=0, shares=SHARES, groups=groups)
    frequent = np.array(
        [sum(label in some for some in strata) >= 60 for label in sorted({x for s in strata for x in s})]
    )
    assert deviations(strata, split)[:, frequent].max() < 0.06
    assert abs(len(split["test"]) / 2000 - 0.15) < 0.02


def test_it_depends_on_the_seed_alone():
    strata = drawn(500, 30)
    first = iterative_split(strata, seed=0, shares=SHARES)
    assert first["test"].tolist() != iterative_split(strata, seed=1, shares=SHARES)["test"].tolist()
    assert first["test"].tolist() == iterative_split(strata, seed=0, shares=SHARES)["test"].tolist()


def test_numbers_are_stratified_by_their_size_and_unknown_values_have_no_stratum():
    texts = [label_text({"year": float(year)} if year % 7 else {}) for year in range(100)]
    strata = SEVERAL.strata(texts)
    assert strata[0] == strata[7] == ()
    known = [some[0] for some in strata if some]
    assert len(set(known)) == 5
    assert known == sorted(known)
    counts = [known.count(name) for name in sorted(set(known))]
    assert max(counts) - min(counts) <= 2
    assert SEVERAL.strata([label_text({"a": 1.0})] * 3) == [("a=0",)] * 3
    both = label_text({"gender=": "Women", "tags:": ["sea", "sun"]})
    assert SEVERAL.strata([both]) == [("gender=Women", "tags:sea", "tags:sun")]


def test_real_tags_are_split_much_closer_to_their_shares_than_at_random(shared_data, tmp_path):
    rows = list(csv.DictReader((shared_data("scenes5") / "scenes5.csv").read_text().splitlines()))
    strata = [row["tags"].split("|") for row in rows]
    rng = np.random.default_rng(0)
    worst, random = [], []
    for seed in range(5):
        worst.append(deviations(strata, iterative_split(strata, seed=seed, shares=SHARES)).max())
        order = rng.permutation(len(rows))
        random.append(deviations(strata, {"val": order[:300], "test": order[300:600]}).max())
    assert max(worst) < 0.005
    assert np.mean(worst) < np.mean(random) / 5


def test_the_order_of_the_rows_does_not_change_the_split(make_folder):
    folder = make_folder({"all": 60})
    rng = np.random.default_rng(0)
    lines = [
        f"all/{path.name},{'|'.join(tag for tag in 'abc' if rng.random() < 0.4) or '|'},{rng.integers(99)}"
        for path in sorted(folder.glob("all/*.png"))
    ]
    splits = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(lines))
        (folder / "m.csv").write_text("\n".join(["path,tags:t,number:n", *(lines[i] for i in order)]))
        dataset = read_dataset(folder / "m.csv", seed=4)
        splits.append([dataset.train.sources, dataset.val.sources, dataset.test.sources])
    assert splits[0] == splits[1] == splits[2]
    assert 8 <= len(splits[0][2]) <= 10
