"""Corruptions against published code, arithmetic written out, and what must hold of any image."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from effnet.data.corruptions.blurs import convolved, disk, moved
from effnet.data.corruptions.kinds import KINDS, corrupt
from effnet.errors import InputError


def photo(side=224, channels=3, seed=0):
    """Return a smooth image with edges and texture, none of it close to black or white."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:side, :side] / side
    waves = [np.sin(9 * across + 3 * c) * np.cos(7 * down * (c + 1)) for c in range(channels)]
    values = 128 + 50 * np.stack(waves, 2) + 25 * (across > down)[..., None] + rng.normal(0, 4, (side, side, 1))
    return values.clip(0, 255).astype(np.uint8)


@pytest.fixture
def peer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("imagecorruptions.corruptions")


PUBLISHED = {"jpeg": "jpeg_compression", "pixelation": "pixelate"}


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("kind", ["defocus_blur", "brightness", "contrast", "pixelation", "jpeg"])
def test_a_corruption_equals_that_of_imagecorruptions(peer, kind, severity):
    from PIL import Image

    image = photo()
    theirs = np.asarray(getattr(peer, PUBLISHED.get(kind, kind))(Image.fromarray(image), severity), np.float64)
    assert np.abs(corrupt(image, kind, severity) - theirs).max() <= 0.51


def test_motion_equals_that_of_imagecorruptions(peer):
    image = photo().astype(np.float64) / 255
    for radius, sigma, degrees in [(10, 3, 20.0), (15, 12, -45.0), (20, 15, 0.0)]:
        theirs = peer._motion_blur(image, radius=radius, sigma=sigma, angle=degrees)
        ours = moved(image, radius=radius, sigma=sigma, degrees=degrees)
        assert np.abs(ours - theirs).max() < 1e-9


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("kind", ["gaussian_noise", "shot_noise"])
def test_noise_has_the_moments_of_that_of_imagecorruptions(peer, kind, severity):
    image = np.full((224, 224, 3), 120, np.uint8)
    np.random.seed(0)
    theirs = getattr(peer, kind)(image, severity)
    ours = corrupt(image, kind, severity).astype(np.float64)
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.02)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


def test_known_values():
    grey = np.full((224, 224, 3), 100, np.uint8)
    assert (corrupt(grey, "darkness", 2) == 50).all()
    assert (corrupt(grey, "brightness", 2) == 151).all()  # 100 + 0.2 x 255
    assert (corrupt(np.zeros((9, 9, 3), np.uint8), "brightness", 1) == 26).all()
    for kind in ("defocus_blur", "motion_blur", "contrast", "rotation", "pixelation", "jpeg"):
        assert np.abs(corrupt(grey, kind, 5).astype(int) - 100).max() <= 1, kind
    noise = corrupt(grey, "gaussian_noise", 1) / 255.0
    assert noise.std() == pytest.approx(0.08, rel=0.02)
    coarse = corrupt(photo(448), "pixelation", 5)
    assert len(np.unique(np.flatnonzero((coarse[:, 1:] != coarse[:, :-1]).any((0, 2))))) <= 55  # 56 columns, as at 224


def test_a_blur_is_the_sum_written_out():
    image, kernel = photo(40).astype(np.float64) / 255, disk(3, smoothing=0.1, exact=True)
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    wanted = np.zeros_like(image)
    for y in range(17):
        for x in range(17):
            wanted += kernel[y, x] * padded[y : y + 40, x : x + 40]
    assert np.abs(convolved(image, kernel) - wanted).max() < 1e-12
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("side", [32, 224, 300])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rotation"])
def test_a_higher_severity_does_more_damage(kind, side):
    image = photo(side).astype(np.float64)
    damage = [np.abs(corrupt(photo(side), kind, severity) - image).mean() for severity in (1, 2, 3, 4, 5)]
    assert all(before <= after + 0.02 for before, after in itertools.pairwise(damage)), damage
    assert damage[-1] > damage[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_kind_alone_decide(kind):
    image = photo(64)
    before = image.copy()
    state = np.random.get_state()[1].copy()
    first = corrupt(image, kind, 4)
    assert (first == corrupt(np.asfortranarray(image), kind, 4)).all()
    assert (image == before).all(), "the image itself must stay"
    assert (np.random.get_state()[1] == state).all()
    if "noise" in kind:
        other = image.copy()
        other[0, 0, 0] ^= 1
        assert (corrupt(other, kind, 4) != first).mean() > 0.5


@settings(max_examples=20)
@given(arrays(np.uint8, st.tuples(*[st.integers(1, 12)] * 2, st.integers(1, 5))), st.sampled_from(list(KINDS)))
def test_any_image_keeps_its_shape(image, kind):
    found = corrupt(image, kind, 5)
    assert found.dtype == np.uint8
    assert found.shape == image.shape


def test_unknown_kinds_and_severities_are_refused():
    with pytest.raises(InputError, match=r"must be one of gaussian_noise.*did you mean 'pixelation'"):
        corrupt(photo(8), "pixelate", 1)
    with pytest.raises(InputError, match="from 1 to 5; got 6"):
        corrupt(photo(8), "jpeg", 6)
