"""Images reach the network as timm's and torchvision's own evaluation transforms give them."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.images.decode import decode_image
from effnet.data.preprocess import Preprocess, normalize, resize_and_crop

pytestmark = pytest.mark.usefixtures("one_thread")

# A value of a pixel, as the peers scale it, and what rounding in 32 bits may add.
LEVEL = 1 / 255
ROUNDING = 1e-6
# Pixels; thousands of photographs at 800 would take a minute, so only a few see the settings above.
MANY = 256

Transform = Callable[[Image.Image], Any]
Way = tuple[Preprocess, Transform]


def transform_of_timm(timm, preprocess: Preprocess, *, raw: bool = False) -> Transform:
    """Return timm's transform; where it is `raw`, pixels stay 0..255, as for the loaders that normalise on a GPU."""
    side = preprocess.resolution
    return timm.data.create_transform(
        (3, side, side),
        is_training=False,
        crop_pct=preprocess.crop,
        crop_mode=preprocess.mode,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        use_prefetcher=raw,
    )


def published_by_timm(timm) -> list[Preprocess]:
    """Return every preprocessing that weights of EfficientNets and ResNets were published with, at both sizes."""
    found: dict[Preprocess, None] = {}
    for name in itertools.chain(timm.list_pretrained("*efficientnet*"), timm.list_pretrained("resnet*")):
        config = timm.get_pretrained_cfg(name)
        for test in (False, True):
            values = timm.data.resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=test)
            preprocess = Preprocess(
                resolution=values["input_size"][-1],
                crop=values["crop_pct"],
                mode=values["crop_mode"],
                interpolation=values["interpolation"],
                mean=tuple(values["mean"]),
                std=tuple(values["std"]),
            )
            found[preprocess] = None
    return list(found)


def presets_of_torchvision(torchvision) -> Iterator[Way]:
    """Yield the preprocessing of all weights of EfficientNets and ResNets, and the transform that they come with."""
    models = torchvision.models
    for name in models.list_models(include=["efficientnet_*", "resnet*"]):
        for weights in models.get_model_weights(name):
            preset = weights.transforms()
            preprocess = Preprocess(
                resolution=preset.crop_size[0],
                crop=preset.crop_size[0] / preset.resize_size[0],
                interpolation=preset.interpolation.value,
                mean=tuple(preset.mean),
                std=tuple(preset.std),
            )
            yield preprocess, preset


def difference(pixels: np.ndarray, image: Image.Image, preprocess: Preprocess, transform: Transform) -> float:
    """Return the largest difference in what the network takes, in pixels scaled to 0..1."""
    found = resize_and_crop(pixels, preprocess)
    expected = np.ascontiguousarray(transform(image).numpy().transpose(1, 2, 0))
    assert found.shape == expected.shape
    if expected.dtype == np.uint8:
        return float(np.abs(found.astype(np.int16) - expected).max()) / 255
    return float((np.abs(normalize(found, preprocess) - expected).max((0, 1)) * preprocess.std).max())


def largest_over(paths: list[Path], ways: list[Way]) -> float:
    """Return the largest difference over all photographs, each under the next of the ways, round and round."""
    ways = [way for way in ways if way[0].resolution <= MANY]
    assert len(ways) >= 10
    worst = 0.0
    for path, (preprocess, transform) in zip(paths, itertools.cycle(ways), strict=False):
        with Image.open(path) as image:
            worst = max(worst, difference(decode_image(path), image.convert("RGB"), preprocess, transform))
    return worst


def test_every_other_photograph_equals_timms_under_published_settings_in_turn(timm, photo_paths):
    ways = [(preprocess, transform_of_timm(timm, preprocess, raw=True)) for preprocess in published_by_timm(timm)]
    assert largest_over(photo_paths[::2], ways) <= ROUNDING


def test_the_others_equal_torchvisions_under_its_presets_in_turn(torchvision, photo_paths):
    assert largest_over(photo_paths[1::2], list(presets_of_torchvision(torchvision))) <= ROUNDING


def test_the_images_of_scikit_learn_equal_theirs_under_every_published_setting(timm, torchvision, photos):
    ways = [(preprocess, transform_of_timm(timm, preprocess)) for preprocess in published_by_timm(timm)]
    ways += presets_of_torchvision(torchvision)
    assert len(ways) >= 90
    assert {(preprocess.mode, preprocess.crop < 1) for preprocess, _ in ways} == {
        ("center", False), ("center", True), ("squash", False), ("squash", True)
    }  # fmt: skip
    for (preprocess, transform), photo in zip(ways, itertools.cycle(photos[:2]), strict=False):
        assert difference(photo, Image.fromarray(photo), preprocess, transform) <= ROUNDING, preprocess


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    resolution=st.sampled_from([1, 7, 32, 65]),
    crop=st.sampled_from([1.0, 0.965, 0.875, 0.5]),
    mode=st.sampled_from(["center", "squash"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
@example(height=1, width=1, resolution=224, crop=0.875, mode="center", interpolation="bicubic")
@example(height=223, width=225, resolution=224, crop=1.0, mode="center", interpolation="bicubic")
@example(height=223, width=225, resolution=224, crop=0.875, mode="squash", interpolation="bilinear")
@example(height=300, width=77, resolution=224, crop=0.875, mode="center", interpolation="bicubic")
@example(height=2000, width=77, resolution=65, crop=0.9, mode="center", interpolation="bicubic")
@example(height=256, width=256, resolution=224, crop=0.875, mode="center", interpolation="lanczos")
def test_images_of_any_size_equal_timms(timm, height, width, resolution, crop, mode, interpolation):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preprocess = Preprocess(resolution=resolution, crop=crop, mode=mode, interpolation=interpolation)
    transform = transform_of_timm(timm, preprocess)
    assert difference(pixels, Image.fromarray(pixels), preprocess, transform) <= ROUNDING


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("height, width", [(1, 500), (500, 1), (3, 1000), (1000, 3)])
def test_strips_too_long_to_be_enlarged_whole_differ_by_one_level_at_most(timm, height, width, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preprocess = Preprocess(resolution=224, interpolation=interpolation)
    transform = transform_of_timm(timm, preprocess)
    assert difference(pixels, Image.fromarray(pixels), preprocess, transform) <= LEVEL + ROUNDING
