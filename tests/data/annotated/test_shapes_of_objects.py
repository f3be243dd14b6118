import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effnet.data.annotated.masks.shapes import (
    Polygons,
    Rle,
    area_of,
    box_of,
    counts_of,
    pixels_of,
    rle_of,
    shape_from_coco,
    text_of,
)
from effnet.errors import DataError

SIDES = st.integers(1, 24)
MASKS = hnp.arrays(bool, st.tuples(SIDES, SIDES))
NUMBERS = st.one_of(st.integers(-6, 30).map(float), st.integers(-12, 60).map(lambda n: n / 2), st.floats(-6, 30))


@given(MASKS)
@settings(deadline=None)
def test_run_lengths_hold_the_mask(mask):
    rle = rle_of(mask)
    height, width = mask.shape
    assert np.array_equal(pixels_of(rle, height=height, width=width), mask)
    assert np.array_equal(counts_of(text_of(rle)), rle.counts)
    assert area_of(rle) == mask.sum()
    rows, columns = np.nonzero(mask)
    assert box_of(rle) == ((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None)


@given(MASKS)
@settings(deadline=None)
def test_text_is_that_of_cocoapi(mask):
    coco = pytest.importorskip("pycocotools.mask")
    assert text_of(rle_of(mask)).encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@given(SIDES, SIDES, st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=8), min_size=1, max_size=3))
@settings(deadline=None)
def test_pixels_of_polygons_are_those_of_cocoapi(height, width, parts):
    coco = pytest.importorskip("pycocotools.mask")
    flat = [[value for point in part for value in point] for part in parts]
    # Its own way to merge; it never takes 4 numbers for a box here.
    expected = coco.decode(coco.merge(coco.frPyObjects(flat, height, width))).astype(bool)
    found = pixels_of(shape_from_coco(flat), height=height, width=width)
    assert np.array_equal(found, expected)


def test_areas_and_boxes_of_polygons():
    shape = Polygons(parts=(np.array([[1.0, 2], [5, 2], [5, 4], [1, 4]]), np.array([[10.0, 0], [12, 0], [10, 2]])))
    assert (area_of(shape), box_of(shape)) == (10.0, (1, 0, 12, 4))


@pytest.mark.parametrize(
    "value, why",
    [
        ({"size": [2, 2], "counts": [3]}, "add up to height x width, 2 x 2 = 4; they add up to 3"),
        ({"size": [2, 2], "counts": [5, -1]}, "whole numbers"),
        ({"size": [2, 2], "counts": [4.0]}, "text or whole numbers"),
        ({"size": [2**40, 2], "counts": []}, "must be a list of polygons, or have size and counts"),
        ({"size": [2], "counts": []}, "size and counts"),
        ({"size": [2, 2], "counts": "o"}, "must not end within a number"),
        ({"size": [2, 2], "counts": "é"}, "characters from '0' to 'o'"),
        ({"size": [2, 2], "counts": "o" * 9 + "0"}, "below 2"),
        ({"size": [2, 2], "counts": None}, "text or whole numbers"),
        ("x", "list of polygons"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, "x"]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, None]], "must be finite"),
        ([[1, 2, 3, 4, 5, [6]]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, 10**400]], "at least 3 points"),
        ([{}], "at least 3 points"),
    ],
)
def test_hostile_shapes_are_errors(value, why):
    with pytest.raises(DataError, match=why):
        shape_from_coco(value)


def test_shapes_far_beyond_their_image_cost_nothing():
    huge = Rle(height=2**19, width=2**19, counts=np.array([2**37, 2**37]))
    assert box_of(huge) == (2**18, 0, 2**19, 2**19)
    with pytest.raises(DataError, match="must have the size of its image, 10 x 20; it has 524288 x 524288"):
        pixels_of(huge, height=20, width=10)
    for far in (1e6, 1e15, 1e300):
        with pytest.raises(DataError, match="must not reach far beyond its image"):
            pixels_of(Polygons(parts=(np.array([[0, 0], [far, 0], [0, far]]),)), height=20, width=10)
    assert shape_from_coco([]) is None
