"""The reduced size at which a JPEG file is decoded: never with a visible difference."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.preprocess import Preprocess
from effnet.data.view.reduction import KEPT, LARGE_PIXELS, eval_reduction


@pytest.mark.parametrize(
    ("size", "mode", "resolution", "expected"),
    [
        ((4032, 3024), "center", 224, 1),  # 12 megapixels, as in most phones
        ((6000, 4000), "center", 224, 1),  # 24, the limit
        ((5712, 4284), "center", 224, 4),  # 24.5
        ((8064, 6048), "center", 224, 4),  # 48
        ((6048, 8064), "center", 224, 4),
        ((8064, 6048), "center", 600, 2),
        ((8064, 6048), "center", 1000, 1),
        ((16320, 12240), "center", 224, 8),  # 200, if EFFNET_MAX_PIXELS allows them
        ((30_000, 1_000), "center", 224, 1),  # its shorter side has no pixels to spare
        ((30_000, 1_000), "squash", 224, 1),
        ((30_000, 1_000), "pad", 224, 8),  # 224 pixels of its longer side are enough
    ],
)
def test_only_large_images_with_pixels_to_spare_are_reduced(size, mode, resolution, expected):
    preprocess = Preprocess(resolution=resolution, mode=mode, crop=1.0 if mode == "pad" else 0.875)
    assert eval_reduction(*size, preprocess=preprocess) == expected


@given(
    st.integers(1, 40_000), st.integers(1, 40_000), st.integers(1, 1000), st.sampled_from(("center", "squash", "pad"))
)
def test_a_reduced_image_keeps_four_times_what_it_is_resized_to(width, height, resolution, mode):
    preprocess = Preprocess(resolution=resolution, mode=mode, crop=1.0 if mode == "pad" else 0.9)
    found = eval_reduction(width, height, preprocess=preprocess)
    assert found in (1, 2, 4, 8)
    assert found == eval_reduction(height, width, preprocess=preprocess)  # before EXIF's orientation and after it
    if width * height <= LARGE_PIXELS:
        assert found == 1
    if found > 1:
        side = (max if mode == "pad" else min)(width, height)
        assert side / found >= KEPT * math.floor(resolution / preprocess.crop)
