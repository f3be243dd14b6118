"""Which images show a part of another."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from effnet.jobs.audit.overlap import overlap, small_grey

LEAST = 0.88


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Return an image of random blots of several sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        for n in (4, 9, 20)
    ]
    return Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.3)


def likeness(one: Image.Image, other: Image.Image) -> float:
    return overlap(small_grey(np.asarray(one)), small_grey(np.asarray(other)))


@pytest.mark.parametrize("share", [0.55, 0.7, 0.8, 0.92])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (1.0, 0.3)])
def test_a_crop_is_found_wherever_it_is(share, place):
    image = scene(round(10 * share))
    width, height = round(160 * share), round(120 * share)
    left, top = round(place[0] * (160 - width)), round(place[1] * (120 - height))
    crop = image.crop((left, top, left + width, top + height))
    for changed in (crop, ImageOps.mirror(crop), crop.resize((200, 150)), ImageOps.autocontrast(crop)):
        assert min(likeness(image, changed), likeness(changed, image)) > LEAST


def test_a_square_part_of_a_wide_image_is_found():
    image = scene(5, 240, 100)
    assert likeness(image, image.crop((90, 5, 180, 95))) > LEAST


def test_different_images_are_not_alike():
    assert max(likeness(scene(one), scene(other)) for one in range(4) for other in range(4, 8)) < LEAST


def test_flat_images_are_like_nothing():
    grey = Image.new("RGB", (80, 60), (90, 90, 90))
    assert likeness(grey, grey) == 0
    assert likeness(grey, scene(1)) < 0.01
    assert likeness(Image.new("L", (3, 500)).convert("RGB"), scene(1)) < 0.01
