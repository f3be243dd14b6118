import numpy as np
import pytest
from detected import detected, random_set, truth

from effnet.measurement.detection.curves import best_f1, confusion, curve, image_counts
from effnet.measurement.detection.matching import match


def test_the_best_threshold_has_the_highest_f1_of_all():
    rng = np.random.default_rng(0)
    truths, answers = random_set(rng, images=6, objects=6, found=9, num_classes=3)
    matches = match(truths, answers, num_classes=3)
    found = best_f1(matches)
    every = np.unique(np.concatenate([a.scores for a in answers]))
    f1 = []
    for threshold in every:
        kept = match(truths, [a.above(threshold) for a in answers], num_classes=3)
        right = sum(int(one.right[0, 0].sum()) for one in kept)
        wrong = sum(int((~one.right[0, 0] & ~one.ignored[0, 0]).sum()) for one in kept)
        objects = sum(int(one.positives[:, 0].sum()) for one in kept)
        f1.append(2 * right / (right + wrong + objects))
    assert found.f1 == pytest.approx(max(f1), abs=1e-12)
    kept = every[every >= found.threshold]
    assert kept[0] == pytest.approx(every[int(np.argmax(f1))])
    assert kept[0] > found.threshold  # between two scores
    points = curve(matches)
    assert [p.threshold for p in points] == sorted((p.threshold for p in points), reverse=True)
    assert max(p.f1 for p in points) == pytest.approx(found.f1, abs=1e-12)
    assert all(p.f1 == pytest.approx(2 * p.precision * p.recall / (p.precision + p.recall)) for p in points if p.f1)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    rng = np.random.default_rng(1)
    truths, answers = random_set(rng, images=60, objects=20, found=20, num_classes=1)
    answers = [detected(a.boxes, rng.random(len(a)), a.classes) for a in answers]
    matches = match(truths, answers, num_classes=1)
    points = curve(matches)
    assert 100 < len(points) <= 202
    assert points[-1].threshold == min(a.scores.min() for a in answers if len(a))
    assert points[0].threshold == max(a.scores.max() for a in answers if len(a))


def test_nothing_found_or_nothing_to_find_has_no_threshold():
    nothing = match([truth([(0, 0, 9, 9)])], [detected([], [])], num_classes=1)
    assert (best_f1(nothing), curve(nothing)) == (None, [])
    wrong = match([truth([(0, 0, 9, 9)])], [detected([(50, 50, 60, 60)], [0.9])], num_classes=1)
    assert best_f1(wrong) is None
    assert [(p.precision, p.recall) for p in curve(wrong)] == [(0, 0)]
    empty = match([truth([])], [detected([(50, 50, 60, 60)], [0.9])], num_classes=1)
    assert (best_f1(empty), curve(empty)) == (None, [])


def test_confusions_name_classes_background_and_misses():
    objects = truth(
        [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 80, 20), (100, 0, 110, 10)],
        [0, 1, 1, 0, 1],
        crowd=[False, False, False, True, False],
        difficult=[False, False, False, False, True],
    )
    found = [
        ((0, 0, 10, 10), 0.9, 0),
        ((20, 0, 30, 9), 0.8, 0),
        ((21, 0, 30, 9), 0.9, 1),
        ((61, 1, 65, 5), 0.9, 0),
        ((100, 0, 110, 10), 0.9, 1),
        ((200, 0, 210, 10), 0.9, 1),
        ((0, 0, 10, 10), 0.1, 0),
    ]
    answers = detected(*zip(*found, strict=True))
    counts = confusion([objects], [answers], num_classes=2, threshold=0.5)
    # One right cat; a dog taken for a cat by the larger overlap, and its other box for nothing; one dog missed.
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]
    assert confusion([objects], [answers], num_classes=2, threshold=0.95).tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]
    # Right: the cat and the dog's own box; wrong: the dog's box as a cat, and that of nothing.
    assert image_counts([objects], [answers], threshold=0.5).tolist() == [[2, 2, 1]]
    assert image_counts([objects, truth([])], [detected([], []), answers], threshold=0.5).tolist() == [
        [0, 0, 3],
        [0, 6, 0],
    ]
