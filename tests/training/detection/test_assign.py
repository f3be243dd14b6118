"""Which points and anchors learn which object, against the papers' algorithms written out one box at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.tasks.boxes.anchors import anchors, encode
from effnet.tasks.boxes.points import points
from effnet.training.detection.anchor_loss import encode_boxes, match_anchors
from effnet.training.detection.assign import PRIOR, atss, task_aligned
from effnet.training.detection.grid import make_grid

pytestmark = pytest.mark.usefixtures("one_thread")

LEVELS = (3, 4, 5, 6)


def boxes_within(rng, number, height, width, *, least=3.0, most=None):
    """Return random boxes [n, 4] that no two points are equally far from."""
    sides = rng.uniform(least, most or min(height, width), (number, 2))
    low = rng.uniform(0, 1, (number, 2)) * np.maximum([width, height] - sides, 0)
    return np.concatenate((low, low + sides), axis=1).astype(np.float32)


def iou(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def inside(point, box):
    return min(point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]) > 0.01


def atss_of_the_paper(boxes, height, width, nearest=9):
    """Algorithm 1 of Zhang et al. 2020, in float64: its lines are numbered."""
    found = points(height, width, levels=LEVELS)
    centres, strides = found.centres.astype(np.float64), found.strides.astype(np.float64)
    priors = np.concatenate((centres - PRIOR * strides / 2, centres + PRIOR * strides / 2), axis=1)
    taken = {}
    for number, box in enumerate(boxes.astype(np.float64)):
        candidates = []
        for level in range(len(LEVELS)):  # 3 to 6
            own = np.flatnonzero(found.levels == level)
            middle = (box[:2] + box[2:]) / 2
            away = np.hypot(*(centres[own] - middle).T)
            candidates += own[np.argsort(away)[:nearest]].tolist()
        ious = np.array([iou(priors[place], box) for place in candidates])  # 7
        least = ious.mean() + ious.std(ddof=1)  # 8 to 10
        for place, value in zip(candidates, ious, strict=True):  # 11 to 15
            if value >= least and inside(centres[place], box) and value > taken.get(place, (-1, 0))[0]:
                taken[place] = value, number
    answer = np.full(len(centres), -1)
    for place, (_, number) in taken.items():
        answer[place] = number
    return answer


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([(96, 128), (160, 160), (100, 75)]))
@settings(max_examples=40, deadline=None)
def test_atss_is_that_of_the_paper(seed, number, sides):
    boxes = boxes_within(np.random.default_rng(seed), number, *sides)
    found = atss(torch.from_numpy(boxes), make_grid(*sides, levels=LEVELS)).objects.numpy()
    assert (found == atss_of_the_paper(boxes, *sides)).mean() > 0.995  # float32 may tip a threshold
    assert set(found.tolist()) <= {-1, *range(number)}


def test_no_object_is_learnt_by_nothing_unless_it_lies_between_the_points():
    """Of 329 objects, as an image of nuclei has, all that hold a point of their own are learnt."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(32 * 32)[:329]
    low = np.stack((cells % 32, cells // 32), axis=1) * 16 + 1.0
    boxes = np.concatenate((low, low + 14), axis=1).astype(np.float32)
    found = atss(torch.from_numpy(boxes), make_grid(512, 512, levels=LEVELS)).objects
    assert set(found.tolist()) - {-1} == set(range(329))
    between = torch.tensor([[4.5, 4.5, 11.5, 11.5]])  # the points of stride 8 are at 4 and 12
    assert (atss(between, make_grid(64, 64, levels=LEVELS)).objects == -1).all()


def test_without_objects_nothing_is_learnt():
    grid, none = make_grid(64, 64, levels=LEVELS), torch.empty(0, 4)
    assert (atss(none, grid).objects == -1).all()
    found = task_aligned(torch.rand(len(grid), 2), torch.rand(len(grid), 4), none, torch.empty(0).long(), grid)
    assert (found.objects == -1).all()
    assert not found.quality.any()
    assert (match_anchors(none, torch.rand(5, 4)) == -1).all()


def task_aligned_of_the_paper(scores, found, boxes, classes, centres, most, alpha, beta):
    """Section 3.2 of Feng et al. 2021, in float64."""
    ious = np.array([[iou(box, other) for other in found] for box in boxes])
    aligned = scores[:, classes].T ** alpha * ious**beta
    for number, box in enumerate(boxes):
        aligned[number] *= [inside(point, box) for point in centres]
    chosen = np.zeros_like(aligned, bool)
    for number, row in enumerate(aligned):
        best = np.argsort(-row)[:most]
        chosen[number, best[row[best] > 0]] = True
    objects = np.where(chosen.any(0), np.where(chosen, ious, -1).argmax(0), -1)
    quality = np.zeros(len(centres))
    for number in range(len(boxes)):
        own = objects == number
        if own.any():
            quality[own] = aligned[number, own] / aligned[number, own].max() * ious[number, own].max()
    return objects, quality


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_task_aligned_assignment_is_that_of_the_paper(seed, number):
    rng = np.random.default_rng(seed)
    grid = make_grid(96, 96, levels=LEVELS)
    boxes = boxes_within(rng, number, 96, 96, least=12)
    classes = rng.integers(0, 3, number)
    scores = rng.uniform(0.01, 0.9, (len(grid), 3)).astype(np.float32)
    found = boxes[rng.integers(0, number, len(grid))] + rng.normal(0, 4, (len(grid), 4)).astype(np.float32)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 2)
    ours = task_aligned(*(torch.from_numpy(each) for each in (scores, found, boxes, classes)), grid, most=5)
    objects, quality = task_aligned_of_the_paper(
        scores.astype(np.float64), found.astype(np.float64), boxes.astype(np.float64), classes,
        grid.centres.numpy().astype(np.float64), 5, 1.0, 6.0,
    )  # fmt: skip
    assert (ours.objects.numpy() == objects).all()
    assert ours.quality.numpy() == pytest.approx(quality, rel=1e-3, abs=1e-5)


def matched_by_effdet(boxes, anchors, least=0.5):
    """effdet 0.4.1, object_detection/argmax_matcher.py with force_match_for_each_row, as its comments say."""
    ious = np.array([[iou(box, other) for other in anchors] for box in boxes])
    matches = ious.argmax(0)
    matches[ious.max(0) < least] = -1
    indicators = np.zeros_like(ious)
    indicators[np.arange(len(boxes)), ious.argmax(1)] = 1
    return np.where(indicators.max(0) > 0, indicators.argmax(0), matches)


@given(st.integers(0, 10_000), st.integers(1, 10))
@settings(max_examples=20, deadline=None)
def test_anchors_are_matched_as_effdet_matches_them(seed, number):
    rng = np.random.default_rng(seed)
    boxes = boxes_within(rng, number, 64, 64).astype(np.float64)
    if seed % 2:
        boxes = np.concatenate((boxes, boxes[:1]))  # two objects with one best anchor
    priors = anchors(64, 64, levels=(3, 4, 5)).astype(np.float64)
    found = match_anchors(torch.from_numpy(boxes), torch.from_numpy(priors)).numpy()
    assert (found == matched_by_effdet(boxes, priors)).all()


def test_codes_are_those_of_the_device():
    rng = np.random.default_rng(0)
    boxes, priors = boxes_within(rng, 50, 200, 300), boxes_within(rng, 50, 200, 300)
    assert encode_boxes(torch.from_numpy(boxes), torch.from_numpy(priors)).numpy() == pytest.approx(
        encode(boxes, priors), abs=1e-5
    )
