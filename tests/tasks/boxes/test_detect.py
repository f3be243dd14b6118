import numpy as np
import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.decoders.usual import with_detector
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError
from effnet.tasks.boxes.candidates import choose, detect
from effnet.tasks.boxes.points import boxes_at, distances_to, points
from effnet.tasks.boxes.whole import find_objects


def test_objects_come_back_from_raw_outputs():
    every = points(192, 320)
    truth = np.array([[16.0, 20, 60, 90], [100, 40, 220, 150], [100, 40, 220, 150]])
    classes, places = [2, 0, 1], [(0, 38, 55), (2, 160, 96), (2, 176, 96)]
    raw, logits = np.zeros((len(every), 4), np.float32), np.full((len(every), 3), -9.0, np.float32)
    for box, number, (level, x, y) in zip(truth, classes, places, strict=True):
        near = np.abs(every.centres - (x, y)).sum(1) + 1e6 * (every.levels != level)
        for place in np.argsort(near)[:3]:  # three cells see each
            raw[place] = distances_to(box[None], every.centres[place][None], every.strides[place][None])[0]
            logits[place, number] = 2 - near[place] / 50
    found = detect(raw, logits, lambda own, at: boxes_at(own, every.centres[at], every.strides[at]), threshold=0.3)
    assert sorted(found.classes.tolist()) == [0, 1, 2]
    for box, number in zip(truth, classes, strict=True):
        assert np.abs(found.boxes[found.classes == number] - box).max() < 1e-3
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes.dtype == np.float32


def test_candidates_are_those_above_the_threshold_by_score():
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 2, (500, 4)).astype(np.float32)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    places, classes, found = choose(logits, threshold=0.3)
    assert found == pytest.approx(np.sort(scores[scores >= 0.3])[::-1])
    assert found == pytest.approx(scores[places, classes])
    assert choose(logits, threshold=0.3, most=7)[2] == pytest.approx(found[:7])
    places, classes, found = choose(logits, threshold=0.3, one_class=True)
    assert len(set(places.tolist())) == len(places) == (scores.max(1) >= 0.3).sum()
    assert (classes == logits[places].argmax(1)).all()


def test_nothing_found_and_values_that_are_not_finite():
    none = detect(np.zeros((5, 4)), np.full((5, 2), -50.0), lambda raw, at: raw)
    assert len(none) == 0
    assert none.boxes.shape == (0, 4)
    raw, logits = np.tile([[5.0, 5, 9, 9]], (4, 1)), np.full((4, 1), 3.0)
    raw[0, 0], logits[1], raw[2] = np.inf, np.nan, (0, 0, 1, 1)
    found = detect(raw, logits, lambda own, at: own)
    assert found.boxes.tolist() == [[0, 0, 1, 1], [5, 5, 9, 9]]
    with np.errstate(over="raise"):
        assert detect(raw[2:], np.array([[1e30], [-1e30]]), lambda own, at: own).scores.tolist() == [1]
    raw[2] = (0, 0, -1, 1)
    assert detect(raw, logits, lambda own, at: own).boxes.tolist() == [[5, 5, 9, 9]]


def test_soft_suppression_lowers_scores_by_the_overlap():
    """Bodla et al. 2017, equation 4: exp(-IoU^2 / sigma), sigma 0.5; boxes of other classes are left alone."""
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 60, 60]])
    logits = np.array([[2.0, -9], [1, -9], [-9, 1.5], [0, -9]])
    scores = 1 / (1 + np.exp(-logits))
    found = detect(boxes, logits, lambda own, at: own, threshold=0.3, soft=True)
    expected = [scores[0, 0], scores[2, 1], scores[3, 0], scores[1, 0] * np.exp(-(0.5**2) / 0.5)]
    assert found.scores == pytest.approx(expected)
    assert found.boxes[:, 3].tolist() == [10, 10, 60, 5]
    hard = detect(boxes, logits, lambda own, at: own, threshold=0.3, iou=0.4)
    assert hard.scores == pytest.approx(expected[:3])


def test_other_shapes_are_errors():
    with pytest.raises(DataError, match=r"boxes must be \[3, 4\]"):
        detect(np.zeros((2, 4)), np.zeros((3, 1)), lambda raw, at: raw)
    with pytest.raises(DataError, match=r"logits must be \[places, classes\]"):
        choose(np.zeros(3), threshold=0.5)
    with pytest.raises(DataError, match="threshold must be above 0 and below 1; got 0"):
        choose(np.zeros((3, 1)), threshold=0)


def test_an_image_may_have_hundreds_of_objects():
    """One of 16 x 16 pixels in each cell of the finest level of an input of 160 x 160: 400, as in microscope images."""
    spec = with_detector(get_spec("lite0"), 1, max_level=4)
    preprocess = Preprocess(resolution=160, mode="corner", crop=1.0)
    logits = np.where(np.arange(500) < 400, 3.0, -9.0).astype(np.float32)  # levels 3 and 4: 400 and 100 places
    outputs = {"boxes": np.zeros((1, 500, 4), np.float32), "scores": logits.reshape(1, 500, 1)}
    found = find_objects(lambda images: outputs, np.zeros((160, 160, 3), np.uint8), spec, preprocess)
    assert len(found) == 400
    assert found.boxes[21].tolist() == [4, 4, 20, 20]  # the second cell of the second row
