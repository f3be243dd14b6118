import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.preprocess import (
    Preprocess,
    normalize,
    random_flip,
    random_resized_crop,
    random_shift,
    resize_and_crop,
)
from effnet.data.view.crop import random_view
from effnet.errors import DataError


def make_image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def torchvision_eval(image: np.ndarray, resolution: int, crop: float, resampling: int) -> np.ndarray:
    """Resize(int) then CenterCrop as in torchvision (functional._compute_resized_output_size)."""
    pil = Image.fromarray(image)
    width, height = pil.size
    size = math.floor(resolution / crop)
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    resized = pil.resize((new_width, new_height), resampling)
    top, left = round((new_height - resolution) / 2.0), round((new_width - resolution) / 2.0)
    return np.asarray(resized.crop((left, top, left + resolution, top + resolution)))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    resolution=st.integers(1, 48),
    crop=st.sampled_from([0.875, 0.9, 0.95, 1.0]),
    name=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_center_equals_torchvision(height: int, width: int, resolution: int, crop: float, name: str) -> None:
    image = make_image(height, width)
    found = resize_and_crop(image, Preprocess(resolution=resolution, crop=crop, interpolation=name))
    expected = torchvision_eval(image, resolution, crop, Image.Resampling[name.upper()])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("height, width", [(333, 3), (3, 333), (1, 500), (500, 1), (400, 12)])
@pytest.mark.parametrize("resolution, crop", [(64, 1.0), (65, 0.9)])
def test_a_strip_by_part_equals_the_strip_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, resolution: int, crop: float, name: str
) -> None:
    monkeypatch.setattr("effnet.data.preprocess._MOST_PIXELS", 0)
    image = make_image(height, width)
    found = resize_and_crop(image, Preprocess(resolution=resolution, crop=crop, interpolation=name))
    expected = torchvision_eval(image, resolution, crop, Image.Resampling[name.upper()])
    # Pillow keeps the box in 32 bits, so that a value halfway between two integers may be rounded differently.
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.15


def test_a_strip_does_not_need_the_memory_of_the_whole() -> None:
    for shape in ((1, 20_000), (20_000, 1)):
        found = resize_and_crop(make_image(*shape), Preprocess(resolution=224))
        assert found.shape == (224, 224, 3)
        assert found.std() > 0


def test_squash_shows_the_whole_image() -> None:
    image = make_image(20, 50)
    found = resize_and_crop(image, Preprocess(resolution=16, crop=1.0, mode="squash"))
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(image).resize((16, 16), 3)))


def test_squash_keeps_the_crop() -> None:
    """The configuration of tf_efficientnetv2_b3.in21k_ft_in1k."""
    image = make_image(20, 50)
    found = resize_and_crop(image, Preprocess(resolution=16, crop=0.8, mode="squash"))
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(image).resize((20, 20), 3))[2:18, 2:18])


def test_the_exact_size_is_not_resampled() -> None:
    image = make_image(32, 32)
    np.testing.assert_array_equal(resize_and_crop(image, Preprocess(resolution=32, crop=1.0)), image)
    np.testing.assert_array_equal(resize_and_crop(image, Preprocess(resolution=32, crop=1.0, mode="squash")), image)
    found = resize_and_crop(image, Preprocess(resolution=28, crop=0.875))
    np.testing.assert_array_equal(found, image[2:30, 2:30])


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_channels_are_resampled_apart(channels: int) -> None:
    image = make_image(20, 26, channels)
    image[..., -1] = 0  # as alpha this would make the others black
    preprocess = Preprocess(resolution=12, mean=(0.5,) * channels, std=(0.5,) * channels)
    found = resize_and_crop(image, preprocess)
    for i in range(channels):
        np.testing.assert_array_equal(found[..., [i]], resize_and_crop(image[..., [i]], preprocess))
    assert preprocess.channels == channels


def test_normalize_is_the_formula_in_float32() -> None:
    images = make_image(4, 5)[None]
    preprocess = Preprocess(resolution=4)
    found = normalize(images, preprocess)
    expected = (images / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match=r"uint8 \[\.\.\., 3\]"):
        normalize(images[..., :1], preprocess)


def test_normalize_equals_torchvision_bit_for_bit() -> None:
    torch = pytest.importorskip("torch")
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    preprocess = Preprocess(resolution=16)
    tensor = torch.from_numpy(images).to(torch.float32).div(255)
    tensor = tensor.sub_(torch.tensor(preprocess.mean)).div_(torch.tensor(preprocess.std))
    np.testing.assert_array_equal(normalize(images, preprocess), tensor.numpy())


def test_preprocess_goes_through_json() -> None:
    preprocess = Preprocess(resolution=64, crop=1.0, mode="squash", mean=(0.5,), std=(0.25,))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    with pytest.raises(DataError, match="received 'resolutoin'; did you mean 'resolution'"):
        Preprocess.from_dict({"resolutoin": 3})
    with pytest.raises(DataError, match="must have the key resolution"):
        Preprocess.from_dict({"crop": 1.0})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"resolution": 40_000}, r"resolution / crop must be at most 4,096 pixels, received 40000 / 0\.875"),
        ({"resolution": 10**400}, r"must be at most 4,096 pixels, received 10{79}\.\.\. /"),
        ({"crop": 5e-324}, r"must be at most 4,096 pixels, received 8 / 4\.9"),
        ({"crop": 0.001, "mode": "squash"}, "must be at most 4,096 pixels, received 8 / 0.001"),
        ({"resolution": 4_000, "crop": 1.0, "mean": (0.5,) * 9, "std": (0.5,) * 9}, "at most 134,217,728 values"),
        ({"mean": (1e308, 0.5, 0.5)}, "mean must lie within 10000 of 0"),
        ({"std": (1e-308, 0.5, 0.5)}, r"std must lie in 0\.0001\.\.10000, received \(1e-308"),
        ({"std": (1e308, 0.5, 0.5)}, r"std must lie in 0\.0001\.\.10000"),
        ({"resolution": 0}, "resolution must be"),
        ({"resolution": 1.5}, "resolution must be"),
        ({"resolution": True}, "resolution must be"),
        ({"crop": 0}, "crop must be"),
        ({"crop": 1.01}, "crop must be"),
        ({"crop": float("nan")}, "crop must be"),
        ({"mode": "centre"}, "mode must be one of .*; did you mean 'center'"),
        ({"interpolation": "cubic"}, "did you mean 'bicubic'"),
        ({"mean": ()}, "mean must be"),
        ({"mean": (0.1,)}, "one length"),
        ({"std": (0.1, 0.0, 0.1)}, "std must be above 0"),
        ({"std": (0.1, float("inf"), 0.1)}, "std must be a tuple"),
    ],
)
def test_values_out_of_range_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess(**{"resolution": 8, **change})


def test_images_of_another_kind_are_refused() -> None:
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DataError, match="must be uint8"):
            resize_and_crop(image, Preprocess(resolution=4))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), channels=st.sampled_from([1, 3, 4, 5]))
def test_random_images_have_the_shape_and_follow_the_seed(height: int, width: int, channels: int) -> None:
    image = make_image(height, width, channels)
    for augment in (random_resized_crop, random_shift):
        first = augment(image, resolution=9, rng=np.random.default_rng(3))
        again = augment(image, resolution=9, rng=np.random.default_rng(3))
        assert first.shape == (9, 9, channels)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, again)


def test_random_resized_crop_covers_the_scale_and_ratio() -> None:
    ramp = np.empty((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1], ramp[..., 2] = np.arange(100)[:, None], np.arange(100), 0
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(200):
        found = random_resized_crop(ramp, resolution=32, rng=rng, interpolation="bilinear").astype(float)
        height = (found[-1, 0, 0] - found[0, 0, 0]) * 32 / 31
        width = (found[0, -1, 1] - found[0, 0, 1]) * 32 / 31
        assert 0.7 < width / height < 1.43
        areas.append(height * width / 10_000)
    assert 0.3 < min(areas) < 0.45
    assert 0.85 < max(areas) < 1.1


def test_the_whole_image_at_its_size_is_untouched_by_a_full_crop() -> None:
    image = make_image(16, 16)
    found = random_resized_crop(image, resolution=16, rng=np.random.default_rng(0), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(found, image)


def test_random_shift_of_nothing_is_the_identity() -> None:
    image = make_image(16, 16, 1)
    found = random_shift(
        image, resolution=16, rng=np.random.default_rng(0), max_shift=0, max_rotate_degrees=0, max_zoom=0
    )
    np.testing.assert_array_equal(found, image)


def test_random_shift_moves_and_turns_within_its_limits() -> None:
    dot = np.zeros((64, 64, 1), np.uint8)
    dot[30:34, 30:34] = 255
    rng = np.random.default_rng(0)
    centers = []
    for _ in range(100):
        found = random_shift(dot, resolution=64, rng=rng, interpolation="bilinear")[..., 0].astype(float)
        rows, columns = np.indices(found.shape)
        centers.append([(rows * found).sum() / found.sum(), (columns * found).sum() / found.sum()])
    offsets = np.array(centers) - 31.5
    assert np.abs(offsets).max() <= 6.4 / 0.9 + 0.5
    assert np.abs(offsets).max() > 4


def test_random_shift_fills_with_the_border() -> None:
    grey = np.full((10, 10, 3), 77, np.uint8)
    for seed in range(20):
        found = random_shift(grey, resolution=32, rng=np.random.default_rng(seed), max_rotate_degrees=45)
        assert (found == 77).all()


def test_random_flip_mirrors_half_of_the_time() -> None:
    image, rng = make_image(3, 4), np.random.default_rng(0)
    mirrored = sum(not np.array_equal(random_flip(image, rng=rng), image) for _ in range(400))
    assert 160 < mirrored < 240


PADDED = Preprocess(resolution=16, crop=1.0, mode="pad", mean=(0.5, 0.2, 0.0), std=(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "height, width, inner", [(8, 32, (4, 16)), (32, 8, (16, 4)), (1, 900, (1, 16)), (3, 3, (16, 16))]
)
def test_padding_shows_the_whole_image_on_the_mean_colour(height, width, inner) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    found = resize_and_crop(image, PADDED)
    shown = (found == 255).all(axis=2)
    assert found.shape == (16, 16, 3)
    assert (shown.any(axis=1).sum(), shown.any(axis=0).sum()) == inner
    assert np.array_equal(np.unique(found[~shown], axis=0), [[128, 51, 0]] * (inner != (16, 16)) or np.empty((0, 3)))
    top, left = (np.flatnonzero(shown.any(axis=axis))[0] for axis in (1, 0))
    assert abs(2 * top + inner[0] - 16) <= 1
    assert abs(2 * left + inner[1] - 16) <= 1


def test_padding_takes_no_crop_and_no_other_channels() -> None:
    with pytest.raises(DataError, match=r"crop must be 1 in mode pad, .* received 0.9"):
        Preprocess(resolution=16, crop=0.9, mode="pad")
    with pytest.raises(DataError, match="3 channels, received 1"):
        resize_and_crop(make_image(4, 8, 1), PADDED)
    assert Preprocess.from_dict(PADDED.to_dict()) == PADDED


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), mode=st.sampled_from(["center", "squash", "pad"]),
    seed=st.integers(0, 99), area=st.floats(0.05, 1.0),
)  # fmt: skip
def test_a_random_view_of_any_image_is_part_of_it(height, width, mode, seed, area) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    preprocess = Preprocess(resolution=16, crop=1.0, mode=mode, mean=(0.0,) * 3)
    rng = np.random.default_rng(seed)
    found = random_view(image, preprocess, rng=rng, scale=(area, 1.0), interpolation="bicubic")
    assert found.shape == (16, 16, 3)
    assert found.max() == 255
    if mode != "pad":
        assert found.min() == 255


@pytest.mark.parametrize("mode, spread", [("squash", (0.5, 1.0)), ("pad", (0.77, 1.0))])
def test_views_of_a_wide_image_have_the_geometry_of_evaluation(mode, spread) -> None:
    """Pixels encode their column: the view of a squashed image covers most of its width, and of its height."""
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8)[None, :, None], (80, 1, 3))
    preprocess, rng = Preprocess(resolution=32, crop=1.0, mode=mode, mean=(1.0,) * 3), np.random.default_rng(0)
    whole = resize_and_crop(ramp, preprocess)
    spans, heights = [], []
    for _ in range(40):
        view = random_view(ramp, preprocess, rng=rng, scale=(0.3, 1.0), interpolation="bilinear")
        middle = view[16, :, 0].astype(int)
        spans.append((middle.max() - middle[0]) / 255)
        heights.append((view[:, 0, 0] != 255).sum())
    assert min(spans) < spread[0] + 0.15
    assert max(spans) > 0.85
    if mode == "pad":  # zoomed by at most a third
        expected = (whole[:, 0, 0] != 255).sum()
        assert expected <= min(heights) + 1
        assert max(heights) <= 1.6 * expected
