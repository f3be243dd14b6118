"""Every operation against Pillow's own, on photographs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from effnet.training.input.operations import GREY, OPERATIONS, operate

pytestmark = pytest.mark.usefixtures("one_thread")

AFFINE, BILINEAR = Image.Transform.AFFINE, Image.Resampling.BILINEAR
FILL = (GREY,) * 3
FACTORS = (0.0, 0.1, 0.37, 1.0, 1.9, 2.8)


def move(matrix: Callable[[float, tuple[int, int]], tuple]) -> Callable[[Image.Image, float], Image.Image]:
    """Return Pillow's affine transform with this matrix."""
    return lambda i, v: i.transform(i.size, AFFINE, matrix(v, i.size), BILINEAR, fillcolor=FILL)


COLOURS = {
    "identity": (lambda i, v: i, (0.0,)),
    "autocontrast": (lambda i, v: ImageOps.autocontrast(i), (0.0,)),
    "equalize": (lambda i, v: ImageOps.equalize(i), (0.0,)),
    "invert": (lambda i, v: ImageOps.invert(i), (0.0,)),
    "posterize": (lambda i, v: ImageOps.posterize(i, int(v)), (1, 2, 5, 8)),
    "solarize": (ImageOps.solarize, (0, 26, 128, 230, 256, 384)),
    "solarize_add": (lambda i, v: i.point([min(255, p + v) if p < 128 else p for p in range(256)] * 3), (0, 33, 165)),
    "brightness": (lambda i, v: ImageEnhance.Brightness(i).enhance(v), FACTORS),
    "color": (lambda i, v: ImageEnhance.Color(i).enhance(v), FACTORS),
    "contrast": (lambda i, v: ImageEnhance.Contrast(i).enhance(v), FACTORS),
    "sharpness": (lambda i, v: ImageEnhance.Sharpness(i).enhance(v), FACTORS),
}
MOVES = {
    "rotate": (lambda i, v: i.rotate(v, BILINEAR, fillcolor=FILL), (-135, -30, 6, 45)),
    "shear_x": (move(lambda v, size: (1, v, 0, 0, 1, 0)), (-0.3, 0.12, 0.99)),
    "shear_y": (move(lambda v, size: (1, 0, 0, v, 1, 0)), (-0.3, 0.12, 0.99)),
    "translate_x": (move(lambda v, size: (1, 0, v * size[0], 0, 1, 0)), (-0.4, 0.1, 0.45)),
    "translate_y": (move(lambda v, size: (1, 0, 0, 0, 1, v * size[1])), (-0.4, 0.1, 0.45)),
}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Return scikit-learn's two photographs, and images with a flat, a nearly flat and a very small range of grey."""
    photos = [Image.fromarray(load_sample_image(name)).resize((80, 60)) for name in ("china.jpg", "flower.jpg")]
    flat = np.full((60, 80, 3), 90, np.uint8)
    nearly, ramp = flat.copy(), flat.copy()
    nearly[0, 0] = 91
    ramp += (np.arange(80) // 20).astype(np.uint8)[:, None]
    return photos + [Image.fromarray(made) for made in (flat, nearly, ramp)]


def batch_of(images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(p) for p in images])).permute(0, 3, 1, 2)


def done(originals: list[Image.Image], name: str, value: float) -> np.ndarray:
    images = batch_of(originals)
    kept = images.clone()
    result = operate(images, name, torch.full((len(originals),), float(value)))
    assert torch.equal(images, kept), "an operation must leave its argument as it was"
    assert result.dtype == torch.uint8
    return result.permute(0, 2, 3, 1).numpy().astype(int)


def test_no_operation_is_left_out():
    assert {**COLOURS, **MOVES}.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("name, value", [(name, v) for name, (_, values) in COLOURS.items() for v in values])
def test_colours_are_pillows_to_a_level(name, value, images):
    expected = np.stack([np.asarray(COLOURS[name][0](image, value)) for image in images])
    assert np.abs(done(images, name, value) - expected).max() <= 1


def test_posterizing_to_no_bits_leaves_black(images):
    assert done(images, "posterize", 0).max() == 0


@pytest.mark.parametrize("name, value", [(name, v) for name, (_, values) in MOVES.items() for v in values])
def test_moves_are_pillows_within_the_image_and_grey_outside(name, value, images):
    reference, photos = MOVES[name][0], images[:2]
    expected = np.stack([np.asarray(reference(image, value)).astype(int) for image in photos])
    white = Image.new("RGB", photos[0].size, "white")
    covered = operate(batch_of([white]), name, torch.tensor([float(value)]))[0, 0].numpy()
    inside, outside = covered == 255, covered == GREY
    found = done(photos, name, value)
    assert inside.mean() > 0.2
    assert np.abs(found - expected)[:, inside].max() <= 1
    assert (found[:, outside] == GREY).all()
    assert (expected[:, outside] == GREY).all()
    assert (inside | outside).mean() > 0.93  # the rest is the edge, where images and grey mix


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_image_has_its_own_value(name, images):
    values = torch.tensor([0.1, 0.9, 0.4, 2.0, 1.3])
    together = operate(batch_of(images), name, values)
    for number, image in enumerate(images):
        assert torch.equal(together[number : number + 1], operate(batch_of([image]), name, values[number, None]))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_channels_other_than_three_are_treated_one_by_one(name, channels):
    images = torch.randint(0, 256, (3, channels, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = torch.tensor([0.2, 0.5, 1.4])
    result = operate(images, name, values)
    assert result.shape == images.shape
    if name == "color":
        assert torch.equal(result, images)
    elif name != "contrast":  # which uses the mean of all channels
        for channel in range(channels):
            alone = operate(images[:, channel : channel + 1], name, values)
            assert torch.equal(alone, result[:, channel : channel + 1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(sorted(OPERATIONS)), st.floats(-2, 3), st.integers(0, 99))
def test_images_of_any_size_come_out_in_their_size(height, width, name, value, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)
    assert operate(images, name, torch.tensor([value, 0.0])).shape == images.shape


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["autocontrast", "equalize"]), st.integers(1, 256), st.integers(0, 10_000))
def test_grey_images_of_few_levels_are_stretched_as_pillow_does(name, levels, seed):
    pixels = np.random.default_rng(seed).integers(256 - levels, 256, (23, 31), dtype=np.uint8)
    expected = np.asarray(getattr(ImageOps, name)(Image.fromarray(pixels))).astype(int)
    found = operate(torch.from_numpy(pixels)[None, None], name, torch.zeros(1))[0, 0].numpy()
    assert np.abs(found - expected).max() <= 1
