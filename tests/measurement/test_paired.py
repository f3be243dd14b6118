"""Paired comparison, against scipy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from effnet.measurement.paired import Paired, paired, refusal


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_p_value_is_that_of_a_binomial_test(lost, gained):
    found = Paired(images=200, lost=lost, gained=gained)
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert found.p_value == pytest.approx(expected)


def test_images_that_changed_sides_are_counted():
    before = np.array([1, 1, 1, 0, 0, 1], dtype=bool)
    after = np.array([1, 0, 0, 1, 0, 1], dtype=bool)
    found = paired(before, after)
    assert (found.images, found.lost, found.gained) == (6, 2, 1)
    assert found.drop == pytest.approx(before.mean() - after.mean())
    assert found.sentence().startswith("loses 16.67 percentage points: of 6 images 2 became wrong and 1 right")
    assert "; not significant, McNemar" in found.sentence()


def test_the_interval_covers_the_true_drop_as_often_as_it_says():
    """Draw 500 images 10,000 times, of which 3 % are lost and 2 % gained."""
    draws = np.random.default_rng(0).multinomial(500, (0.03, 0.02, 0.95), 10_000)
    rows = [Paired(images=500, lost=int(lost), gained=int(gained)).interval for lost, gained, _ in draws]
    covered = np.mean([low <= 0.01 <= high for low, high in rows])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_a_change_of_many_images_is_more_than_chance():
    assert "; significant, McNemar" in Paired(images=100, lost=12, gained=1).sentence()
    assert Paired(images=100, lost=0, gained=3).sentence().startswith("gains 3.00 percentage points:")
    assert Paired(images=100, lost=2, gained=2).sentence().startswith("keeps the accuracy:")


def test_a_loss_is_refused_from_the_first_image_too_many():
    assert refusal(Paired(images=200, lost=3, gained=2), 0.005) == ""  # exactly the allowed loss
    assert refusal(Paired(images=200, lost=0, gained=9), 0.0) == ""
    refused = refusal(Paired(images=200, lost=4, gained=2), 0.005)
    assert refused.startswith("loses 1.00 percentage points: of 200 images 4 became wrong and 2 right")
    assert refused.endswith("more than the allowed 0.5 percentage points")


def test_one_of_few_images_may_be_lost_unless_none_may():
    assert refusal(Paired(images=60, lost=1, gained=0), 0.005) == ""
    assert refusal(Paired(images=60, lost=1, gained=0), 0.0).endswith("more than the allowed 0 percentage points")
    refused = refusal(Paired(images=60, lost=2, gained=0), 0.005)
    assert refused.endswith("0.5 percentage points; with 60 images a single one is 1.67, which is allowed")
    assert refusal(Paired(images=199, lost=2, gained=0), 0.005)
    assert refusal(Paired(images=400, lost=2, gained=0), 0.005) == ""


def test_where_classes_count_alike_the_drop_is_that_of_the_balanced_accuracy():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [170, 20, 10])
    before, after = rng.random(200) < 0.9, rng.random(200) < 0.7
    found = paired(before, after, labels=labels)
    accuracy = [balanced_accuracy_score(labels, np.where(right, labels, (labels + 1) % 3)) for right in (before, after)]
    assert found.drop == pytest.approx(accuracy[0] - accuracy[1])
    assert "points of balanced accuracy" in found.sentence()
    assert found.to_dict()["balanced"] is True
    # With one class it is the same as without classes.
    plain, alone = paired(before, after), paired(before, after, labels=np.zeros(200, int))
    assert (plain.drop, plain.interval, plain.p_value) == (alone.drop, alone.interval, alone.p_value)


def test_the_interval_of_a_balanced_drop_covers_it():
    rng, shares, counts = np.random.default_rng(3), np.array([0.02, 0.1]), np.array([300, 60])
    labels, covered = np.repeat([0, 1], counts), 0
    for _ in range(300):
        lost = rng.random(360) < shares[labels]
        low, high = paired(np.ones(360, bool), ~lost, labels=labels).interval
        covered += low <= shares.mean() <= high
    assert 0.92 <= covered / 300 <= 0.99


def test_one_image_of_a_rare_class_may_be_lost_and_no_more():
    def lose(*places):
        after = np.ones(180, bool)
        after[list(places)] = False
        return refusal(paired(np.ones(180, bool), after, labels=np.repeat([0, 1], [170, 10])), 0.005)

    assert lose(175) == ""  # 5 percentage points
    assert lose(0) == ""
    assert "with 180 images a single one is 5.00, which is allowed" in lose(175, 3)
    assert lose(1, 2)  # 0.59 percentage points, and no image of a rare class that would weigh more
