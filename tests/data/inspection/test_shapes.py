import pytest

from effnet.data.inspection.shapes import resize_note, resized_as, shapes_of, shapes_warning, suited_mode
from effnet.data.preprocess import Preprocess

PHOTOS = shapes_of([(1920, 1080), (1080, 1920), (640, 480), (1920, 1080)])
WIDE = shapes_of([(400, 100), (800, 200), (410, 100), (396, 99)])
MIXED = shapes_of([(400, 100), (100, 100), (600, 100), (100, 500)] * 3)


def test_ordinary_photographs_keep_the_centre_crop_to_the_last_bit():
    before = Preprocess(resolution=224, crop=0.9)
    assert (suited_mode(PHOTOS), PHOTOS.crop_loss) == ("center", 0.4375)
    assert shapes_warning(PHOTOS) == []
    assert resize_note("auto", PHOTOS) == ""
    assert resized_as(before, "auto", PHOTOS) is before
    own = Preprocess(resolution=224, crop=0.9, mode="squash")  # as for published weights
    assert resized_as(own, "auto", PHOTOS) is own


@pytest.mark.parametrize("shapes, mode", [(WIDE, "squash"), (MIXED, "pad")])
def test_wide_images_are_seen_whole(shapes, mode):
    found = resized_as(Preprocess(resolution=224, crop=0.9), "auto", shapes)
    assert (found.mode, found.crop) == (suited_mode(shapes), 1.0) == (mode, 1.0)
    (warning,) = shapes_warning(shapes)
    assert warning.startswith("A centre crop would lose 7")
    assert f"--set fit.resize={mode}" in warning
    assert "a centre crop would lose 7" in resize_note("auto", shapes)


def test_what_a_user_asks_for_comes_first():
    squashed = Preprocess(resolution=224, crop=0.9, mode="squash")
    assert resized_as(squashed, "center", WIDE) == Preprocess(resolution=224, crop=0.9)
    assert resized_as(squashed, "squash", WIDE) is squashed
    assert resized_as(squashed, "pad", PHOTOS) == Preprocess(resolution=224, crop=1.0, mode="pad")
    assert "as set by fit.resize=center. A centre crop would lose 75% of the width" in resize_note("center", WIDE)


def test_tall_images_lose_their_height():
    assert "of the height" in shapes_warning(shapes_of([(100, 400)]))[0]
