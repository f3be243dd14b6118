import json
import math

import numpy as np
import pytest
from dense import segmentation_score

from effnet.errors import DataError
from effnet.measurement.segmentation.score import SCORE, count_image, lines, score, table, warnings_about
from effnet.measurement.segmentation.small import read_small_mask, small_mask
from effnet.system.records import from_data

NAMES = ("sea", "land", "road")


def counted(*pairs, names=NAMES):
    return [
        count_image(np.asarray(t), np.asarray(p), num_classes=len(names), source=f"{i}.png", index=10 + i)
        for i, (t, p) in enumerate(pairs)
    ]


def test_the_figures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (4, 30, 40))
    answers = np.where(rng.random(masks.shape) < 0.7, masks, rng.integers(0, 3, masks.shape))
    masks[:, :4] = 255
    found = score(counted(*zip(masks, answers, strict=True)), NAMES)
    known = masks != 255
    assert found.miou == pytest.approx(metrics.jaccard_score(masks[known], answers[known], average="macro"))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(masks[known], answers[known]))
    assert found.confusion == tuple(map(tuple, metrics.confusion_matrix(masks[known], answers[known]).tolist()))
    guess = np.full(masks.shape, np.bincount(masks[known]).argmax())
    assert found.constant.miou == pytest.approx(metrics.jaccard_score(masks[known], guess[known], average="macro"))
    assert found.constant.name == NAMES[guess[0, 0, 0]]
    assert sum(each.share for each in found.per_class) == pytest.approx(1)
    assert found.miou_interval[0] < found.miou < found.miou_interval[1]
    assert (found.pixels, found.chance) == (int(known.sum()), "")


def test_the_worst_images_come_first_with_their_most_frequent_error():
    good = np.zeros((8, 8), np.uint8)
    good[:, 4:] = 1
    bad, worse = good.copy(), good.copy()
    bad[:2] = 2
    worse[:, :4] = 1
    found = score(counted((good, good), (good, bad), (good, worse)), NAMES)
    first, second = found.mistakes  # the image without an error is none
    assert (first.index, first.label, first.predicted, first.confused) == (12, "sea", "land", 0.5)
    assert (second.index, second.predicted, second.accuracy) == (11, "road", 0.75)
    assert read_small_mask(first.answered).tolist() == worse.tolist()
    assert [each.images for each in found.per_class] == [3, 3, 0]
    assert found.per_class[2].iou == 0


def test_a_trace_of_a_class_makes_no_image_the_worst():
    plain = np.zeros((100, 100), np.uint8)
    trace = plain.copy()
    trace[0, 0] = 1
    half = plain.copy()
    half[:30] = 1
    found = score(counted((plain, trace), (plain, half)), NAMES)
    assert [each.index for each in found.mistakes] == [11, 10]


def test_a_constant_answer_is_no_model():
    rng = np.random.default_rng(1)
    masks = [(rng.random((20, 20)) < 0.3).astype(np.uint8) for _ in range(6)]
    found = score(counted(*((mask, np.zeros_like(mask)) for mask in masks)), NAMES)
    assert found.miou == pytest.approx(found.constant.miou)
    assert "It is no better than a constant answer" in found.chance
    assert any("WARNING" in line and "'sea'" in line for line in lines(found))
    assert table(found).note == "1 more class has no pixel here."


def test_a_score_is_read_back_from_json():
    unknown = np.full((3, 3), 255)
    for found in (segmentation_score(), score(counted((unknown, np.zeros((3, 3)))), NAMES)):
        again = from_data(SCORE, json.loads(json.dumps(found.to_dict(), allow_nan=False)), where="test")
        assert again.to_dict() == found.to_dict()
    assert math.isnan(found.miou)
    assert found.mistakes == ()
    assert "No pixel of the test images" in warnings_about(found, None, balanced=False)[0]
    assert any("mIoU -" in line for line in lines(found))


def test_leaked_images_are_left_out():
    found = segmentation_score(leaked=["folder/0.png", "folder/1.png"])
    rest = segmentation_score(images=4, seed=2)
    assert (found.clean.leaked, found.clean.images) == (2, 4)
    assert found.clean.miou == pytest.approx(rest.miou)
    assert "2 test images leak" in warnings_about(found, None, balanced=False)[-1]
    every = segmentation_score(images=1, leaked=["folder/0.png"])
    assert "All 1 test images leak" in warnings_about(every, None, balanced=False)[-1]


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (1, 2000), (641, 900)])
def test_small_copies_have_the_nearest_pixels(shape):
    mask = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = read_small_mask(small_mask(mask))
    assert max(found.shape) <= 320
    if max(shape) <= 320:
        assert found.tolist() == mask.tolist()
    else:
        rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip(found.shape, shape, strict=True))
        assert found.tolist() == mask[rows.astype(int)][:, columns.astype(int)].tolist()


def test_bad_masks_are_errors():
    with pytest.raises(DataError, match="at least one image"):
        score([], NAMES)
    with pytest.raises(DataError, match="classes must be from 0 to 2"):
        counted((np.zeros((2, 2), int), np.full((2, 2), 3)))
