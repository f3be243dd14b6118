"""Degradation of training images: its strengths, its frequency, and that a step repeats."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from effnet.errors import InputError
from effnet.training.input.augment import augment_batch, draw_plan
from effnet.training.input.degrade import Degradation, degraded
from effnet.training.recipe.augment import Augment

GREY = torch.full((3, 48, 48), 128, dtype=torch.uint8)
ROBUST = Augment(noise=0.2, blur=0.15, jpeg=0.15)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("grain", [1, 2, 3])
def test_noise_has_its_standard_deviation_and_its_grain(grain):
    found = degraded(GREY, Degradation(noise=20.0, grain=grain), rng()).float()
    assert found.std().item() == pytest.approx(20, rel=0.05)
    assert found.mean().item() == pytest.approx(128, abs=2)
    same = (found[:, :, 1:] == found[:, :, :-1]).float().mean().item()
    assert same == pytest.approx((grain - 1) / grain, abs=0.08)


def test_a_blur_is_pillows():
    image = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    found = degraded(torch.from_numpy(image).permute(2, 0, 1), Degradation(blur=1.5), rng()).permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)), np.float64)
    inside = np.s_[6:-6, 6:-6]
    assert np.abs(found[inside] - theirs[inside]).mean() < 4  # Pillow's is three box blurs
    assert np.corrcoef(found[inside].ravel(), theirs[inside].ravel())[0, 1] > 0.95


def test_shares_are_those_requested_and_never_both():
    plan = draw_plan(ROBUST, size=4000, side=224, seed=3, step=5).degraded
    assert np.mean([each.blur > 0 for each in plan]) == pytest.approx(0.15, abs=0.02)
    assert np.mean([each.quality > 0 for each in plan]) == pytest.approx(0.15, abs=0.02)
    assert np.mean([each.noise > 0 for each in plan]) == pytest.approx(0.5, abs=0.03)
    assert not any(each.blur and each.quality for each in plan)
    assert 45 < max(each.noise for each in plan) <= 51
    assert {each.grain for each in plan} == {1, 2, 3}
    assert 0.1 <= min(each.blur for each in plan if each.blur) <= max(each.blur for each in plan) <= 2.0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_step_repeats_however_it_is_divided(channels):
    images = torch.from_numpy(rng().integers(0, 256, (12, channels, 32, 32), np.uint8))
    common = {"mean": (0.5,) * channels, "seed": 1, "step": 7}
    whole = augment_batch(images, ROBUST, **common)
    parts = [augment_batch(images[i : i + 6], ROBUST, first=i, **common) for i in (0, 6)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, images)
    assert not torch.equal(whole, augment_batch(images, ROBUST, **{**common, "step": 8}))
    assert augment_batch(images, Augment(), **common) is images


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise": 1.5}, "augment.noise must lie in 0..1; got 1.5"),
        ({"blur": 0.6, "jpeg": 0.6}, "must be at most 1 together; got 0.6 and 0.6"),
        ({"adversarial": 0.8}, "augment.adversarial must lie in 0..0.5; got 0.8"),
        ({"adversarial_eps": 0}, "augment.adversarial_eps must be positive"),
        ({"adversarial_eps": 100}, "augment.adversarial_eps must be at most 64; got 100"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Augment(**fields)
