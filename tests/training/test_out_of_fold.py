"""Folds that keep groups together, and scores by heads that never saw the image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effnet.training.transfer.out_of_fold import NEVER, folds_of, out_of_fold


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=2, max_size=60), st.integers(0, 3))
def test_groups_stay_together_and_each_training_set_has_each_class(rows, seed):
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    fold = folds_of(labels, groups, seed=seed)
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    for number in set(fold) - {NEVER}:
        # A group of copies with two labels counts for one class: the other's images may all be in it.
        firsts = {labels[np.flatnonzero(groups == group)[0]] for group in np.unique(groups)}
        assert firsts <= set(labels[fold != number])


def test_a_wrong_label_has_a_low_score_although_its_copy_has_it_too():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], 20)  # class 2 has no image
    features = np.eye(4)[labels] * 3 + 0.3 * rng.normal(size=(60, 4))
    groups = np.arange(60)
    features[1], groups[1] = features[0], 0
    given_labels = labels.copy()
    given_labels[:2] = 3
    fold = folds_of(given_labels, groups)
    logits = out_of_fold(features, given_labels, fold, num_classes=4)
    assert logits.shape == (60, 4)
    assert (logits[:2].argmax(1) == 0).all()
    assert (logits[2:].argmax(1) == labels[2:]).all()
    assert np.isneginf(logits[:, 2]).all()


def test_an_only_image_of_its_class_is_not_judged():
    labels = np.array([0] * 6 + [1] * 6 + [2])
    fold = folds_of(labels, np.arange(13))
    assert fold[-1] == NEVER
    logits = out_of_fold(np.eye(13), labels, fold, num_classes=3)
    assert np.isnan(logits[-1]).all()
    assert np.isfinite(logits[:-1]).all()
