"""Balanced accuracy equals scikit-learn's; its interval is that of resampled images."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from effnet.measurement.classification.recall import ByClass, by_class
from effnet.measurement.intervals import bootstrap
from effnet.system.text import both, percent


@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_balanced_accuracy_is_scikit_learns(pairs):
    labels, predicted = np.array(pairs).T
    found = by_class(predicted == labels, labels, num_classes=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are only predicted
        expected = balanced_accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(expected)
    assert found.accuracy == pytest.approx((labels == predicted).mean())


def test_the_interval_is_that_of_images_drawn_with_replacement():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [170, 40, 10])
    is_right = rng.random(220) < np.array([0.98, 0.8, 0.5])[labels]
    found = by_class(is_right, labels)
    drawn = []
    for _ in range(2000):
        some = rng.integers(0, 220, 220)
        drawn.append(by_class(is_right[some], labels[some]).balanced_accuracy)
    assert found.bootstrap() == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.015)
    assert found.bootstrap() == found.bootstrap()


def test_equal_classes_of_one_image_kind_give_the_interval_of_the_accuracy():
    """With one class both are the same share, and of the same resamplings."""
    found = ByClass(right=np.array([7]), images=np.array([20]))
    assert found.bootstrap() == bootstrap(7, 20)


@pytest.mark.parametrize("right", [0, 20])
def test_all_right_and_all_wrong_have_an_interval_of_no_width(right):
    found = ByClass(right=np.array([right, right, 0]), images=np.array([20, 20, 0]))
    assert found.bootstrap() == (right / 20,) * 2
    assert found.lowest is None


def test_the_lowest_recall_is_named_where_it_is_well_below_the_accuracy():
    images = np.array([170, 10, 0, 2])
    assert ByClass(right=np.array([169, 5, 0, 1]), images=images).lowest == 1  # of equal ones, the one with more images
    assert ByClass(right=np.array([169, 10, 0, 2]), images=images).lowest is None
    assert np.isnan(ByClass(right=np.zeros(2, int), images=np.zeros(2, int)).balanced_accuracy)


@given(share=st.floats(0, 1), digits=st.integers(0, 3))
def test_only_what_is_all_reads_as_100_percent(share, digits):
    text = percent(share, digits)
    assert (text == f"{1:.{digits}%}") == (share == 1)
    assert abs(float(text.rstrip("%")) / 100 - share) <= 10.0 ** -(digits + 2)


def test_two_accuracies_that_read_alike_are_written_once():
    assert both(0.97624, 0.97619) == "97.62%"
    assert both(0.97624, 0.781) == "97.62% (balanced 78.10%)"
    assert both(0.99999, None) == "99.99%"
