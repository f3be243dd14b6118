import json
import math
from dataclasses import replace

import numpy as np
import pytest
from dense import detection_score, made_boxes, noisy_boxes
from detected import by_pycocotools, detected, truth

from effnet.errors import DataError
from effnet.measurement.detection.score import SCORE, lines, nothing_sentence, score, table, warnings_about
from effnet.measurement.detection.text import small_sentence
from effnet.system.records import from_data

NAMES = ("cat", "dog", "owl")


def scored(truths, answers, names=NAMES, **kwargs):
    return score(truths, answers, names, **{"input_size": (320, 320)} | kwargs)


def test_the_figures_are_those_of_pycocotools():
    pytest.importorskip("pycocotools")
    truths = made_boxes(15, NAMES, seed=3)
    answers = noisy_boxes(truths, 3, seed=3)
    expected = by_pycocotools(truths, answers, num_classes=3)
    found = scored(truths, answers)
    assert [found.ap, found.ap50, found.figures.ap75] == pytest.approx(expected.stats[:3].tolist(), abs=1e-9)
    by_class = expected.eval["precision"][:, :, :, 0, 2].mean((0, 1))
    assert [each.ap for each in found.per_class] == pytest.approx(by_class.tolist(), abs=1e-9)
    assert found.ap50_interval[0] < found.ap50 < found.ap50_interval[1]
    assert (found.max_detections, found.coco) == (100, None)


def test_more_objects_than_coco_counts_are_counted_and_said():
    rng = np.random.default_rng(0)
    corners = rng.permutation(np.stack(np.meshgrid(np.arange(20), np.arange(15)), axis=-1).reshape(-1, 2))[:150] * 20.0
    image = truth(np.concatenate((corners, corners + 15), 1))
    found = scored([image], [detected(image.boxes, rng.random(150))], ("nucleus",))
    assert (found.ap, found.max_detections, found.most_objects) == (1, 200, 150)
    assert found.coco.ap50 == pytest.approx(67 / 101)  # 100 of 150 objects reach 67 of the 101 recalls
    assert any("up to 150 objects" in line and "with COCO's 100, AP is 66.3%" in line for line in lines(found))


def test_what_is_said_at_the_threshold_is_counted_by_hand():
    first = truth([(0, 0, 50, 50), (100, 0, 150, 50), (0, 100, 4, 104)], [0, 1, 1], difficult=[False, False, False])
    second = truth([(0, 0, 50, 50), (200, 200, 260, 260)], [0, 2], difficult=[False, True])
    answers = [
        detected([(0, 0, 50, 50), (100, 0, 150, 50), (200, 200, 220, 220)], [0.9, 0.8, 0.7], [0, 2, 0]),
        detected([(200, 200, 260, 260), (0, 0, 50, 50)], [0.9, 0.4], [2, 0]),
    ]
    found = scored([first, second], answers, threshold=0.5, input_size=(300, 400))
    assert (found.objects, found.difficult, found.chosen) == (4, 1, False)
    assert (found.operating.precision, found.operating.recall) == (1 / 3, 1 / 4)
    cat, dog, owl = found.per_class
    assert (cat.precision, cat.recall, cat.f1, cat.support, cat.images) == (0.5, 0.5, 0.5, 2, 2)
    assert (dog.precision, dog.recall, dog.f1) == (None, 0, 0)
    assert (owl.precision, owl.recall, owl.f1, owl.support) == (0, None, None, 0)
    assert found.confusion == ((1, 0, 0, 1), (0, 0, 1, 1), (0, 0, 0, 0), (1, 0, 0, 0))
    assert found.counted.mean_error == 0.5  # 3 boxes of 3 objects; none of 1
    assert found.counted.constant == 1
    assert [(each.objects, each.found) for each in found.sizes.bins] == [
        (0, 0), (1, 0), (0, 0), (0, 0), (3, 1), (0, 0), (0, 0), (0, 0)
    ]  # fmt: skip
    assert small_sentence(found.sizes) == (
        "25.0% of the objects are under 8 px in an input of 400 x 300: 0.0% of these are found, and 33.3% of the others"
    )
    worst = found.mistakes[0]
    assert (worst.index, worst.right, worst.wrong, worst.missed) == (0, 1, 2, 2)
    assert [(each.label, each.right) for each in worst.objects] == [(1, False), (1, False), (0, True)]
    assert [(each.label, each.right, each.score) for each in worst.found] == [
        (0, True, 0.9), (2, False, 0.8), (0, False, 0.7)
    ]  # fmt: skip
    assert [each.right for each in found.mistakes[1].found] == [None]


def test_the_threshold_is_chosen_here_only_without_one():
    found = detection_score(images=8, threshold=None)
    assert found.chosen
    assert any("chosen on these images" in warning for warning in warnings_about(found, None, balanced=False))
    assert found.operating.f1 > detection_score(images=8, threshold=0.8).operating.f1


def test_a_score_is_read_back_from_json():
    for found in (detection_score(images=6), scored([truth([])], [detected([], [])])):
        again = from_data(SCORE, json.loads(json.dumps(found.to_dict(), allow_nan=False)), where="test")
        assert again.to_dict() == found.to_dict()


def test_without_objects_nothing_is_known():
    found = scored([truth([])], [detected([(0, 0, 10, 10)], [0.9])])
    assert math.isnan(found.ap)
    assert (found.operating, found.ap_interval, found.found_nothing) == (None, None, "")
    assert "WARNING: No test image has an object that counts: the average precision is unknown." in lines(found)
    assert table(found).note == "3 more classes have no object here."


@pytest.mark.parametrize(
    "boxes, classes, words",
    [
        ([], [], "no box has a score worth keeping"),
        ([(200, 200, 250, 250)], [0], "touch 0.0%"),
        ([(0, 0, 50, 22)], [0], "fit 0.0% by half"),
        ([(0, 0, 50, 50)], [1], "but with the right class only 0.0%"),
    ],
)
def test_a_detector_that_finds_nothing_is_told_why(boxes, classes, words):
    image = truth([(0, 0, 50, 50)], [0])
    found = scored([image], [detected(boxes, [0.9] * len(boxes), classes)])
    assert found.ap50 == 0
    assert words in found.found_nothing
    assert any(words in line for line in lines(found))


def test_right_boxes_below_many_of_nothing_are_told_apart():
    image = truth([(0, 0, 50, 50)], [0])
    strange = [(100 + i, 100, 150 + i, 150) for i in range(60)]
    answer = detected([*strange, (0, 0, 50, 50)], [0.9] * 60 + [0.1])
    assert "fit 100.0% by half, but most boxes of high scores are of no object" in nothing_sentence([image], [answer])
    assert scored([image], [answer]).found_nothing


def test_leaked_images_are_left_out():
    truths = made_boxes(12, NAMES)
    answers = noisy_boxes(truths, 3)
    leaked = [each.path for each in truths[:5]]
    found = scored(truths, answers, leaked=leaked)
    alone = scored(truths[5:], answers[5:])
    assert (found.clean.leaked, found.clean.images, found.clean.ap) == (5, 7, alone.ap)
    assert any("5 test images leak" in warning for warning in warnings_about(found, None, balanced=False))
    every = scored(truths[:2], answers[:2], leaked=[each.path for each in truths])
    assert "All 2 test images leak" in warnings_about(every, None, balanced=False)[-1]


def test_places_of_images_in_their_split_are_kept():
    truths = [replace(truth([(0, 0, 9, 9)]), path=f"{i}.png") for i in range(3)]
    found = scored(truths, [detected([], [])] * 3, indices=[4, 7, 9], threshold=0.5)
    assert [each.index for each in found.mistakes] == [4, 7, 9]


def test_a_score_needs_images():
    with pytest.raises(DataError, match="at least one image"):
        scored([], [])
