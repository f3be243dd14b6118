import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.view.letterbox import fit_image, fit_sides, letterbox
from effnet.errors import DataError

SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.integers(1, 640), st.integers(1, 640))
@settings(deadline=None)
def test_images_fill_one_side_and_keep_their_proportions(height, width, input_height, input_width):
    place = letterbox(height, width, input_height=input_height, input_width=input_width)
    inner = place.inner_height, place.inner_width
    assert inner[0] == input_height or inner[1] == input_width
    assert 1 <= inner[0] <= input_height
    assert 1 <= inner[1] <= input_width
    scale = min(input_height / height, input_width / width)
    assert abs(inner[0] - max(1, height * scale)) <= 1
    assert abs(inner[1] - max(1, width * scale)) <= 1
    boxes = np.array([[0.0, 0, width, height], [width / 3, height / 4, width / 2, height / 2]])
    assert np.abs(place.to_image(place.to_input(boxes)) - boxes).max() < 1e-9 * max(height, width)
    assert place.to_input(boxes)[0].tolist() == pytest.approx([0, 0, inner[1], inner[0]])
    assert place.to_image(np.array([[-9.0, -9, 9999, 9999]])).tolist() == [[0, 0, width, height]]


def test_a_drawn_box_is_where_the_map_says():
    image = np.zeros((90, 160, 3), np.uint8)
    image[30:60, 40:120] = 255
    fitted, place = fit_image(image, input_height=192, input_width=320, fill=(7, 8, 9))
    assert (place.inner_height, place.inner_width) == (180, 320)
    assert (fitted[180:] == (7, 8, 9)).all()
    rows, columns = np.nonzero(fitted[:180, :, 0] > 127)
    expected = place.to_input(np.array([[40.0, 30, 120, 60]]))[0]
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == pytest.approx(expected.tolist(), abs=1)
    tall, place = fit_image(image.swapaxes(0, 1).copy(), input_height=192, input_width=320, fill=(7, 8, 9))
    assert (place.inner_height, place.inner_width) == (192, 108)
    assert (tall[:, 108:] == (7, 8, 9)).all()


def test_inputs_for_wide_images_save_what_a_square_wastes():
    assert fit_sides(720, 1280, longer=640) == (384, 640)
    assert fit_sides(1280, 720, longer=640) == (640, 384)
    assert fit_sides(500, 500, longer=320) == (320, 320)
    assert fit_sides(1, 10_000, longer=320) == (32, 320)
    with pytest.raises(DataError, match="multiple of 32; got 300"):
        fit_sides(500, 500, longer=300)


def test_bad_images_are_errors():
    with pytest.raises(DataError, match=r"must be uint8 \[H, W, 3\]; got uint8 \[4, 4, 1\]"):
        fit_image(np.zeros((4, 4, 1), np.uint8), input_height=32, input_width=32, fill=(0, 0, 0))
    with pytest.raises(DataError, match="sides must be at least 1; got 0 x 4"):
        letterbox(0, 4, input_height=32, input_width=32)
