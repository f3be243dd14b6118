import dataclasses

import numpy as np
import pytest
from detected import by_pycocotools, detected, random_set, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import DataError
from effnet.measurement.detection.figures import bootstrap, by_class, figures, resampled
from effnet.measurement.detection.matching import match


def both(truths, answers, num_classes, max_detections=(1, 10, 100)):
    """Return the figures by effnet and by pycocotools, -1 if there are none."""
    expected = by_pycocotools(truths, answers, num_classes=num_classes, max_detections=max_detections)
    matches = match(truths, answers, num_classes=num_classes, max_detections=max_detections[-1])
    found = figures(matches, max_detections=max_detections)
    return [-1 if value is None else value for value in dataclasses.astuple(found)], expected, matches


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.sampled_from((0, 4, 12, 40)))
@settings(max_examples=60, deadline=None)
def test_the_twelve_figures_are_those_of_pycocotools(seed, images, num_classes, objects):
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(seed)
    truths, answers = random_set(rng, images=images, objects=objects, found=2 * objects, num_classes=num_classes)
    found, expected, matches = both(truths, answers, num_classes)
    assert found == pytest.approx(list(expected.stats), abs=1e-9)
    precision = expected.eval["precision"]  # thresholds, recalls, classes, areas, numbers of detections
    for place, one in enumerate(by_class(matches)):
        own = precision[:, :, place, 0, 2]
        assert (-1 if one.ap is None else one.ap) == pytest.approx(own.mean(), abs=1e-9)
        assert (-1 if one.ap50 is None else one.ap50) == pytest.approx(own[0].mean(), abs=1e-9)


COORDINATES = st.integers(0, 6)
BOXES = st.builds(lambda x, y, w, h: (x, y, x + w + 1, y + h + 1), COORDINATES, COORDINATES, COORDINATES, COORDINATES)
OBJECTS = st.lists(st.tuples(BOXES, st.integers(0, 1), st.booleans()), max_size=5)
FOUND = st.lists(st.tuples(BOXES, st.integers(0, 1), st.sampled_from((0.1, 0.5, 0.5, 0.9))), max_size=7)


@given(st.lists(st.tuples(OBJECTS, FOUND), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_ties_crowds_and_overlaps_of_exactly_a_half_are_those_of_pycocotools(images):
    pytest.importorskip("pycocotools")
    truths = [truth([o[0] for o in some], [o[1] for o in some], crowd=[o[2] for o in some]) for some, _ in images]
    answers = [detected([f[0] for f in found], [f[2] for f in found], [f[1] for f in found]) for _, found in images]
    found, expected, _ = both(truths, answers, 2)
    assert found == pytest.approx(list(expected.stats), abs=1e-9)


def test_more_than_a_hundred_objects_as_in_the_nuclei():
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(0)
    truths, answers = random_set(rng, images=1, objects=240, found=480, num_classes=1)
    assert len(truths[0].boxes) > 100
    assert len(answers[0]) > 100
    for most in ((1, 10, 100), (1, 100, 500)):
        found, expected, _ = both(truths, answers, 1, max_detections=most)
        # pycocotools takes the overall AP at 100 detections only, -1 if that is none of the numbers.
        assert found[1:] == pytest.approx(list(expected.stats[1:]), abs=1e-9)
        if most[2] == 100:
            assert found[0] == pytest.approx(expected.stats[0], abs=1e-9)


def test_absent_classes_are_none_and_do_not_count():
    truths = [truth([(0, 0, 50, 50)], [1])]
    matches = match(truths, [detected([(0, 0, 50, 50)], [0.9], [1])], num_classes=3)
    assert figures(matches).ap == pytest.approx(1)
    assert figures(matches).ap_large is None
    assert [(one.ap, one.support) for one in by_class(matches)] == [(None, 0), (pytest.approx(1), 1), (None, 0)]
    nothing = figures(match([truth([])], [detected([], [])], num_classes=2))
    assert set(dataclasses.astuple(nothing)) == {None}
    assert figures([]).ap is None
    assert bootstrap(match([truth([])], [detected([], [])], num_classes=1)) == {}


def test_difficult_objects_need_not_be_found_and_may_be_found_often():
    objects = truth([(0, 0, 50, 50), (100, 100, 150, 150)], difficult=[False, True])
    boxes = [(0, 0, 50, 50), (100, 100, 150, 150), (101, 100, 150, 150)]
    matches = match([objects], [detected(boxes, [0.5, 0.9, 0.8])], num_classes=1)
    assert figures(matches).ap == pytest.approx(1)
    assert matches[0].ignored[0, 0].tolist() == [True, True, False]  # by score


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_resampling_has_the_figures_of_repeated_images(seed, images, num_classes):
    """The fast way against the slow one, which matches and sorts the repeated images again; some are crowds."""
    rng = np.random.default_rng(seed)
    truths, answers = random_set(rng, images=images, objects=6, found=10, num_classes=num_classes)
    # Scores that differ: equal ones of two images would be in another order.
    answers = [
        dataclasses.replace(answer, scores=rng.permutation(1000)[: len(answer)] / 1000 + place / 1e5)
        for place, answer in enumerate(answers)
    ]
    matches = match(truths, answers, num_classes=num_classes)
    chosen = rng.integers(0, images, (4, images))
    weights = np.array([np.bincount(row, minlength=images) for row in chosen], np.float64)
    for row, found in zip(chosen, resampled(matches, weights), strict=True):
        repeated = match([truths[i] for i in row], [answers[i] for i in row], num_classes=num_classes)
        expected = figures(repeated)
        known = [found.mean(), found[0], found[5]]
        assert known == pytest.approx(
            [np.nan if value is None else value for value in (expected.ap, expected.ap50, expected.ap75)],
            abs=1e-9,
            nan_ok=True,
        )


def test_the_interval_of_the_bootstrap_holds_the_figure():
    rng = np.random.default_rng(3)
    truths, answers = random_set(rng, images=8, objects=6, found=10, num_classes=3)
    matches = match(truths, answers, num_classes=3)
    low, high = bootstrap(matches, resamples=200)["ap50"]
    assert low < figures(matches).ap50 < high
    assert bootstrap(matches, resamples=200) == bootstrap(matches, resamples=200)


def test_bad_arguments_are_errors():
    with pytest.raises(DataError, match="detections of every image, 1; got 0"):
        match([truth([])], [], num_classes=1)
    with pytest.raises(DataError, match="classes must be from 0 to 0; got 1"):
        match([truth([(0, 0, 1, 1)], [1])], [detected([], [])], num_classes=1)
    with pytest.raises(DataError, match="must have the shapes"):
        detected([(0, 0, 1, 1)], [0.5]).__class__(boxes=np.zeros((2, 4)), scores=np.zeros(1), classes=np.zeros(1, int))
    with pytest.raises(DataError, match="finite"):
        detected([(0, 0, np.nan, 1)], [0.5])
