import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.tasks.boxes.suppress import soften, suppress


def overlap(a, b):
    """Return the intersection over union of two boxes, in the operations of torchvision's kernel, float32."""
    zero = np.float32(0)
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    shared = wide * high
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else zero


def brute_force(boxes, scores, classes, iou):
    """Return the places that torchvision's algorithm keeps, class by class, by score."""
    kept = []
    for place in np.argsort(-scores, kind="stable").tolist():
        rivals = [other for other in kept if classes[other] == classes[place]]
        if not any(overlap(boxes[other], boxes[place]) > iou for other in rivals):
            kept.append(place)
    return kept


def candidates(rng, number, *, num_classes=3, side=100):
    low = rng.integers(0, side, (number, 2)).astype(np.float32)
    boxes = np.concatenate((low, low + rng.integers(0, side // 3, (number, 2))), axis=1).astype(np.float32)
    return boxes, np.round(rng.random(number), 2).astype(np.float32), rng.integers(0, num_classes, number)


@given(
    st.integers(0, 2**32 - 1), st.sampled_from((0, 1, 5, 63, 64, 65, 200)), st.sampled_from((0.0, 0.3, 0.5, 0.6, 1.0))
)
@settings(deadline=None)
def test_boxes_kept_are_those_of_brute_force(seed, number, iou):
    boxes, scores, classes = candidates(np.random.default_rng(seed), number)
    found = suppress(boxes, scores, classes, iou=iou, most=number + 1)
    assert found.tolist() == brute_force(boxes, scores, classes, np.float32(iou))
    assert suppress(boxes, scores, classes, iou=iou, most=3).tolist() == found[:3].tolist()


def test_boxes_of_other_classes_and_without_an_area_stay():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9], [5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32), np.array([0, 1, 0, 0, 0])
    assert suppress(boxes, scores, classes).tolist() == [0, 1, 3, 4]


def soft_brute_force(boxes, scores, classes, *, sigma, least, most):
    scores, left, kept = scores.astype(np.float64), list(range(len(scores))), []
    while left and len(kept) < most:
        best = max(left, key=lambda place: scores[place])
        if scores[best] < least:
            break
        kept.append((best, scores[best]))
        left.remove(best)
        for other in left:
            if classes[other] == classes[best]:
                scores[other] *= np.exp(-(overlap(boxes[best].astype(float), boxes[other].astype(float)) ** 2) / sigma)
    return kept


@given(st.integers(0, 2**32 - 1), st.sampled_from((0, 1, 30)), st.sampled_from((0.2, 0.5)))
@settings(deadline=None, max_examples=25)
def test_soft_suppression_is_that_of_brute_force(seed, number, sigma):
    rng = np.random.default_rng(seed)
    boxes, _, classes = candidates(rng, number)
    scores = rng.permutation(number) / max(number, 1) + 0.01
    places, lowered = soften(boxes, scores, classes, sigma=sigma, least=0.05, most=20)
    expected = soft_brute_force(boxes, scores, classes, sigma=sigma, least=0.05, most=20)
    assert places.tolist() == [place for place, _ in expected]
    assert lowered == pytest.approx([score for _, score in expected], abs=1e-12)
