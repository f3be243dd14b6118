"""The losses of detectors, against torchvision's, and the papers' formulas in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.annotated.objects import COLUMNS, CROWD
from effnet.tasks.boxes.anchors import anchors
from effnet.tasks.boxes.anchors import decode as decode_codes
from effnet.tasks.boxes.points import decode_points, points
from effnet.training.detection.anchor_loss import AnchorLoss, encode_boxes, match_anchors
from effnet.training.detection.assign import atss
from effnet.training.detection.grid import decode, make_grid
from effnet.training.detection.losses import focal_loss, huber_loss, quality_focal_loss
from effnet.training.detection.objective import PointLoss
from effnet.training.detection.overlap import overlap

pytestmark = pytest.mark.usefixtures("one_thread")

LEVELS = (3, 4, 5, 6)


def random_boxes(rng, number, side=64.0):
    low = rng.uniform(0, side / 2, (number, 2))
    return np.concatenate((low, low + rng.uniform(4, side / 2, (number, 2))), axis=1)


def giou_of_the_paper(a, b):
    """Algorithm 1 of Rezatofighi et al. 2019, of two boxes."""
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (around - union) / around


def targets_of(boxes, classes, states=None):
    rows = np.zeros((1, len(boxes), COLUMNS), np.float32)
    rows[0, :, :4], rows[0, :, 4] = boxes, classes
    rows[0, :, 5] = 0 if states is None else states
    return torch.from_numpy(rows)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_overlaps_are_those_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 8), random_boxes(rng, 8)
    found = overlap(torch.from_numpy(a), torch.from_numpy(b))
    wanted = np.array([giou_of_the_paper(*pair) for pair in zip(a, b, strict=True)])
    assert found.iou.numpy() == pytest.approx(wanted[:, 0], abs=1e-9)
    assert found.giou.numpy() == pytest.approx(wanted[:, 1], abs=1e-9)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_focal_losses_are_those_of_the_papers(seed):
    rng = np.random.default_rng(seed)
    logits, quality, hard = rng.normal(0, 3, 20), rng.uniform(0, 1, 20), rng.integers(0, 2, 20).astype(float)
    p = sigmoid(logits)
    wanted = -(np.abs(quality - p) ** 2) * ((1 - quality) * np.log(1 - p) + quality * np.log(p))
    found = quality_focal_loss(torch.from_numpy(logits), torch.from_numpy(quality)).numpy()
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    right = np.where(hard == 1, p, 1 - p)
    wanted = -np.where(hard == 1, 0.25, 0.75) * (1 - right) ** 1.5 * np.log(right)
    found = focal_loss(torch.from_numpy(logits), torch.from_numpy(hard)).numpy()
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    away = np.abs(logits - quality)
    quadratic = np.minimum(away, 0.1)  # as effdet 0.4.1 writes it
    wanted = 0.5 * quadratic**2 + 0.1 * (away - quadratic)
    found = huber_loss(torch.from_numpy(logits), torch.from_numpy(quality)).numpy()
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("sides", [(64, 64), (100, 75), (320, 192)])
def test_decoded_boxes_are_those_of_the_device(sides):
    rng = np.random.default_rng(0)
    found, grid = points(*sides, levels=LEVELS), make_grid(*sides, levels=LEVELS)
    raw = rng.normal(0, 2, (2, len(grid), 4)).astype(np.float32)
    raw[0, 0] = 50  # a broken answer stays finite
    wanted = [decode_points(one, found.centres, found.strides) for one in raw]
    assert decode(torch.from_numpy(raw), grid).numpy() == pytest.approx(np.stack(wanted), rel=1e-5, abs=1e-4)


def test_the_loss_of_points_is_the_sum_of_the_papers_terms():
    rng = np.random.default_rng(1)
    grid, boxes, classes = make_grid(96, 96, levels=LEVELS), random_boxes(rng, 5, 96), rng.integers(0, 3, 5)
    raw = torch.from_numpy(rng.normal(1, 0.5, (1, len(grid), 4)).astype(np.float32))
    logits = torch.from_numpy(rng.normal(-2, 1, (1, len(grid), 3)).astype(np.float32))
    objects = atss(torch.from_numpy(boxes.astype(np.float32)), grid).objects.numpy()
    shown = decode(raw, grid)[0].numpy()
    quality, box_loss = np.zeros((len(grid), 3)), 0.0
    for place in np.flatnonzero(objects >= 0):
        iou, giou = giou_of_the_paper(shown[place], boxes[objects[place]])
        quality[place, classes[objects[place]]] = iou
        box_loss += 1 - giou
    p = sigmoid(logits[0].numpy().astype(np.float64))
    score_loss = -(np.abs(quality - p) ** 2) * ((1 - quality) * np.log(1 - p) + quality * np.log(p))
    wanted = (score_loss.sum() + 2 * box_loss) / (objects >= 0).sum()
    found = PointLoss()(raw, logits, targets_of(boxes, classes), grid)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("assigner", ["atss", "tal"])
def test_the_loss_falls_to_nearly_nothing_for_right_answers_and_learns_from_wrong_ones(assigner):
    """A few hundred steps on the outputs themselves find the objects."""
    grid = make_grid(96, 96, levels=LEVELS)
    targets = targets_of([[10, 12, 60, 50], [55, 40, 90, 92]], [0, 1])
    raw, logits = torch.ones(1, len(grid), 4, requires_grad=True), torch.full((1, len(grid), 2), -3.0).requires_grad_()
    optimizer, loss = torch.optim.Adam([raw, logits], lr=0.1), PointLoss(assigner=assigner)
    first = None
    for _ in range(120):
        value = loss(raw, logits, targets, grid)
        first = first or float(value.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.1 * first
    best = logits.detach()[0].amax(0)
    for number, box in enumerate(targets[0, :, :4]):
        place = int(logits.detach()[0, :, number].argmax())
        assert float(best[number].sigmoid()) > 0.6
        assert float(overlap(decode(raw.detach(), grid)[0, place], box).iou) > 0.9


def test_points_within_ignored_objects_learn_no_score():
    grid = make_grid(64, 64, levels=LEVELS)
    raw, logits = torch.zeros(1, len(grid), 4), torch.zeros(1, len(grid), 2, requires_grad=True)
    PointLoss()(raw, logits, targets_of([[8, 8, 40, 40]], [0], [CROWD]), grid).backward()
    ignored = grid.inside(torch.tensor([[8.0, 8, 40, 40]]))[0]
    assert ignored.any()
    assert not logits.grad[0, ignored].any()
    assert (logits.grad[0, ~ignored] > 0).all()


def test_an_image_without_objects_has_a_loss_of_scores_alone():
    grid = make_grid(64, 64, levels=LEVELS)
    raw, logits = torch.zeros(2, len(grid), 4, requires_grad=True), torch.zeros(2, len(grid), 2)
    empty = torch.zeros(2, 1, COLUMNS)
    empty[..., 4] = -1
    found = PointLoss()(raw, logits, empty, grid)
    assert float(found.detach()) == pytest.approx(2 * len(grid) * 2 * 0.25 * np.log(2), rel=1e-5)
    found = AnchorLoss()(raw, logits, empty, torch.rand(len(grid), 4))
    assert float(found.detach()) == pytest.approx(2 * len(grid) * 2 * 0.75 * 0.5**1.5 * np.log(2), rel=1e-5)


def test_the_loss_of_anchors_is_that_of_efficientdet():
    rng = np.random.default_rng(2)
    priors = torch.from_numpy(anchors(64, 64, levels=(3, 4, 5)))
    boxes, classes = random_boxes(rng, 3).astype(np.float32), np.array([0, 1, 1])
    codes = torch.from_numpy(rng.normal(0, 0.3, (1, len(priors), 4)).astype(np.float32))
    logits = torch.from_numpy(rng.normal(-3, 1, (1, len(priors), 2)).astype(np.float32))
    matched = match_anchors(torch.from_numpy(boxes), priors).numpy()
    positives = np.flatnonzero(matched >= 0)
    hard = np.zeros((len(priors), 2))
    hard[positives, classes[matched[positives]]] = 1
    right = np.where(hard == 1, sigmoid(logits[0].numpy()), 1 - sigmoid(logits[0].numpy()))
    normalizer = len(positives) + 1.0  # num_positives_sum of effdet
    score_loss = (-np.where(hard == 1, 0.25, 0.75) * (1 - right) ** 1.5 * np.log(right)).sum() / normalizer
    wanted = encode_boxes(torch.from_numpy(boxes)[matched[positives]], priors[positives]).numpy()
    away = np.abs(codes[0, positives].numpy() - wanted)
    small = np.minimum(away, 0.1)
    box_loss = (0.5 * small**2 + 0.1 * (away - small)).sum() / (normalizer * 4.0)
    found = AnchorLoss()(codes, logits, targets_of(boxes, classes), priors)
    assert float(found) == pytest.approx(score_loss + 50 * box_loss, rel=1e-5)


def test_codes_are_decoded_to_the_boxes_they_stand_for():
    rng = np.random.default_rng(3)
    boxes, priors = random_boxes(rng, 20), random_boxes(rng, 20)
    codes = encode_boxes(torch.from_numpy(boxes), torch.from_numpy(priors)).numpy()
    assert decode_codes(codes, priors) == pytest.approx(boxes, abs=1e-6)
