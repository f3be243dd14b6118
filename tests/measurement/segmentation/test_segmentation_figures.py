import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.annotated.masks.codes import IGNORE
from effnet.errors import DataError
from effnet.measurement.segmentation.figures import (
    bootstrap_miou,
    confusion_of,
    count_mask,
    image_mious,
    segmentation_figures,
)


def masks(rng, number, *, num_classes, size=(12, 9)):
    truths = [rng.integers(0, num_classes, size).astype(np.uint8) for _ in range(number)]
    answers = [np.where(rng.random(size) < 0.7, t, rng.integers(0, num_classes, size)).astype(np.uint8) for t in truths]
    for truth in truths:
        truth[rng.random(size) < 0.2] = IGNORE
    return truths, answers


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 7), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_figures_of_the_set_are_those_of_scikit_learn(seed, images, num_classes, absent):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truths, answers = masks(rng, images, num_classes=num_classes)
    every = num_classes + absent
    found = segmentation_figures([count_mask(t, a, num_classes=every) for t, a in zip(truths, answers, strict=True)])
    known = np.concatenate([t.ravel() for t in truths]) != IGNORE
    true = np.concatenate([t.ravel() for t in truths])[known]
    guessed = np.concatenate([a.ravel() for a in answers])[known]
    labels = np.union1d(true, guessed)
    assert found.miou == pytest.approx(metrics.jaccard_score(true, guessed, average="macro", labels=labels), abs=1e-12)
    assert found.mean_dice == pytest.approx(metrics.f1_score(true, guessed, average="macro", labels=labels), abs=1e-12)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, guessed), abs=1e-12)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(true, guessed, labels=range(every)))
    each = metrics.jaccard_score(true, guessed, average=None, labels=labels)
    assert [found.per_class[i].iou for i in labels] == pytest.approx(each.tolist(), abs=1e-12)
    assert [i for i in range(every) if found.per_class[i].iou is None] == sorted({*range(every)} - {*labels.tolist()})


def test_the_set_is_not_the_mean_of_its_images():
    one = count_mask(np.zeros((10, 10), int), np.zeros((10, 10), int), num_classes=2)
    other = count_mask(np.ones((2, 5), int), np.zeros((2, 5), int), num_classes=2)
    found = segmentation_figures([one, other])
    assert found.miou == pytest.approx((100 / 110 + 0) / 2)
    assert image_mious([one, other]).tolist() == [1, 0]
    low, high = bootstrap_miou([one, other])
    assert (low, high) == (0, 1)


def test_the_bootstrap_repeats_images():
    truths, answers = masks(np.random.default_rng(0), 30, num_classes=4)
    counts = [count_mask(t, a, num_classes=4, boundary=False) for t, a in zip(truths, answers, strict=True)]
    low, high = bootstrap_miou(counts)
    rng = np.random.default_rng(1)
    again = [segmentation_figures([counts[i] for i in rng.integers(0, 30, 30)]).miou for _ in range(500)]
    assert [low, high] == pytest.approx(np.percentile(again, (2.5, 97.5)).tolist(), abs=0.005)
    assert bootstrap_miou(counts) == (low, high)


def brute_force(truth, predicted, number, radius=2):
    """Return the boundary F1 of a class by the distances between all pairs of boundary pixels."""

    def edges(mask):
        return [
            (y, x)
            for y in range(mask.shape[0])
            for x in range(mask.shape[1])
            if mask[y, x]
            and any(
                0 <= y + b < mask.shape[0] and 0 <= x + a < mask.shape[1] and not mask[y + b, x + a]
                for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))
            )
        ]

    def near(some, others):
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in some)

    true, found = edges(truth == number), edges(predicted == number)
    if not true and not found:
        return None
    recall = near(true, found) / len(true) if true else 0
    precision = near(found, true) / len(found) if found else 0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_boundaries_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 3, (4, 4))
    truth = np.kron(blocks, np.ones((4, 4), int))
    predicted = np.roll(truth, rng.integers(-4, 5, 2), (0, 1))
    found = segmentation_figures([count_mask(truth, predicted, num_classes=3)])
    expected = [brute_force(truth, predicted, number) for number in range(3)]
    assert [each.boundary_f1 for each in found.per_class] == pytest.approx(expected)


def test_boundaries_beside_what_is_ignored_do_not_count():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:], truth[:, 8:12] = 1, IGNORE
    predicted = np.zeros((20, 20), np.uint8)
    predicted[:, 9:] = 1
    found = segmentation_figures([count_mask(truth, predicted, num_classes=2)])
    assert (found.miou, found.mean_boundary_f1) == (1, None)


def test_nothing_known_has_no_figures():
    nothing = count_mask(np.full((3, 3), IGNORE), np.zeros((3, 3), int), num_classes=2)
    found = segmentation_figures([nothing])
    assert (found.miou, found.accuracy, found.mean_dice, found.mean_boundary_f1) == (None, None, None, None)
    assert dataclasses.asdict(found.per_class[0]) == {
        "iou": None, "dice": None, "precision": None, "recall": None, "boundary_f1": None, "pixels": 0,
    }  # fmt: skip
    assert bootstrap_miou([nothing], resamples=5) is None
    assert np.isnan(image_mious([nothing])).all()


@pytest.mark.parametrize(
    "truth, predicted, why",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"of one size \[height, width\]; got \[2, 3\] and \[3, 2\]"),
        (np.zeros(3, int), np.zeros(3, int), "of one size"),
        (np.full((2, 2), 2), np.zeros((2, 2), int), "true classes must be from 0 to 1; got 2 to 2"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "predicted classes must be from 0 to 1; got -1"),
        (np.zeros((2, 2), int), np.full((2, 2), IGNORE), "predicted classes must be from 0 to 1; got 255"),
    ],
)
def test_other_masks_are_errors(truth, predicted, why):
    with pytest.raises(DataError, match=why):
        confusion_of(truth, predicted, num_classes=2)
