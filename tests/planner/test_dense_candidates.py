"""The order of detectors: more pixels promise more until objects are large, and only what can be trained is taken."""

import pytest

from effnet.planner.dense import dense_need, list_dense


def _sides(share):
    sizes = [(side, side) for side in (640, 256, 128, 96)]
    given = {"task": "detection", "num_classes": 3, "channels": 3, "sizes": sizes, "precisions": ("fp32",)}
    found = [c for c in list_dense((), object_share=share, **given) if c.family == "lite0" and c.phi == 0]
    return [c.spec.resolution for c in found if c.spec.decoder.neck.channels == 88]


@pytest.mark.parametrize(("share", "best"), [(None, 640), (0.01, 640), (0.1, 640), (0.28, 256), (0.9, 96)])
def test_larger_inputs_promise_nothing_once_objects_are_64_pixels_large(share, best):
    sides = _sides(share)
    assert sides[0] == best
    smaller = [side for side in sides if side < best]
    assert smaller == sorted(smaller, reverse=True)


def test_twice_the_time_or_half_the_images_allow_twice_the_network():
    one = dense_need(200, minutes=5, macs_per_second=4e9)
    assert one.most_macs == pytest.approx(5 * 60 * 4e9 / (15 * 200))
    assert dense_need(100, minutes=5, macs_per_second=4e9).most_macs == pytest.approx(2 * one.most_macs)
    assert dense_need(200, minutes=10, macs_per_second=4e9).most_macs == pytest.approx(2 * one.most_macs)
    assert "15 epochs of 200 images must fit into 5 minutes" in one.reason
