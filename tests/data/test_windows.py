import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.view.windows import Blend, cut, starts
from effnet.errors import DataError


@given(st.integers(1, 3000), st.integers(1, 600), st.floats(0, 0.9))
@settings(deadline=None)
def test_windows_cover_a_side_and_overlap(length, window, overlap):
    found = starts(length, window, overlap=overlap)
    assert found[0] == 0
    assert found[-1] == max(0, length - window)
    steps = np.diff(found)
    assert (steps > 0).all()
    # Whole pixels: a step is rounded.
    assert (steps <= max(1, window * (1 - overlap)) + 1).all()


@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.integers(3, 60))
@settings(deadline=None, max_examples=25)
def test_values_of_pixels_are_blended_to_themselves(seed, height, width):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    blend = Blend(height, width, channels=3)
    for top, left, part in cut(image, height=16, width=24, fill=(1, 2, 3)):
        assert part.shape == (16, 24, 3)
        blend.add(part.astype(np.float32), top=top, left=left)
    assert np.abs(blend.values() - image).max() < 1e-3
    assert (blend.classes() == blend.values().argmax(2)).all()


def test_the_middle_of_a_window_counts_more_than_its_border():
    blend = Blend(10, 30, channels=1)
    blend.add(np.zeros((10, 20, 1)), top=0, left=0)
    blend.add(np.ones((10, 20, 1)), top=0, left=10)
    row = blend.values()[5, :, 0]
    assert (row[:10] == 0).all()
    assert (row[20:] == 1).all()
    assert (np.diff(row[10:20]) > 0).all()


def test_small_images_are_filled_to_a_window():
    ((top, left, part),) = cut(np.zeros((5, 6, 3), np.uint8), height=8, width=9, fill=(1, 2, 3))
    assert (top, left) == (0, 0)
    assert (part[5:] == (1, 2, 3)).all()
    assert (part[:5, 6:] == (1, 2, 3)).all()
    assert not part[:5, :6].any()


def test_bad_windows_are_errors():
    with pytest.raises(DataError, match="must lie in a window"):
        Blend(4, 4, channels=1).values()
    with pytest.raises(DataError, match=r"must be \[rows, columns, 2\]; got \[4, 4\]"):
        Blend(4, 4, channels=2).add(np.zeros((4, 4)), top=0, left=0)
    with pytest.raises(DataError, match="0 <= overlap < 1; got 5, 3 and 1"):
        starts(5, 3, overlap=1)
