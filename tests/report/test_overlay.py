"""Maps over images: colours by sign, strongest where the map is."""

import base64
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effnet.report.explanation.overlay import as_rgb, data_url, half_share, overlay, place_in_words, upsampled


def test_what_speaks_for_an_answer_is_orange_and_what_speaks_against_it_blue():
    values = np.zeros((7, 7), np.float32)
    values[1, 1], values[5, 5] = 2.0, -2.0
    found = overlay(np.full((70, 70, 3), 128, np.uint8), values).astype(int)
    red, _, blue = found[15, 15]
    assert red > blue + 100
    red, _, blue = found[55, 55]
    assert blue > red + 80
    assert len(set(found[15, 55])) == 1  # grey where the map is zero


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
def test_images_of_any_channels_are_drawn(channels):
    found = overlay(np.zeros((9, 9, channels), np.uint8), np.zeros((2, 2)))
    assert (found.shape, found.dtype) == ((9, 9, 3), np.uint8)
    assert as_rgb(np.zeros((9, 9, channels), np.uint8)).shape == (9, 9, 3)


def test_a_map_keeps_its_places_when_it_is_enlarged():
    values = np.arange(49, dtype=np.float32).reshape(7, 7)
    found = upsampled(values, 224, 224)
    np.testing.assert_allclose(found[16::32, 16::32], values, atol=0.6)
    assert found.min() >= 0
    assert found.max() <= 48


def test_a_page_holds_the_image():
    text = data_url(np.full((8, 8, 3), 200, np.uint8))
    image = Image.open(BytesIO(base64.b64decode(text.removeprefix("data:image/jpeg;base64,"))))
    assert image.size == (8, 8)


@pytest.mark.parametrize(
    "place, words",
    [((0, 0), "top left"), ((3, 3), "centre"), ((6, 3), "bottom centre"), ((3, 6), "middle right")],
)
def test_the_strongest_place_in_words(place, words):
    values = np.zeros((7, 7))
    values[place] = 1
    assert place_in_words(values) == words


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_half_of_the_positive_sum_is_in_the_least_share_of_places(numbers):
    values = np.array([numbers])
    positive = sorted((max(number, 0) for number in numbers), reverse=True)
    found = half_share(values)
    if not any(positive):
        assert found == 1
        return
    count = round(found * len(numbers))
    assert sum(positive[:count]) >= sum(positive) / 2 - 1e-9
    assert count == 1 or sum(positive[: count - 1]) <= sum(positive) / 2 + 1e-9
