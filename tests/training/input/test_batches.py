from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from places import SHARED

from effnet.data.datasets import Split
from effnet.data.images.jpeg import EncodedJpeg
from effnet.data.preprocess import Preprocess, random_box
from effnet.data.view.reduction import reduction_for
from effnet.errors import ImageError
from effnet.training.input.batches import augmented, cached_loader, train_batches
from effnet.training.input.resize import resize_square
from effnet.training.recipe.schema import Augment, Recipe, Train

SHARED_DATA = SHARED / "data"
RECIPE = Recipe(train=Train(batch_size=8, seed=3), augment=Augment(view="crop", min_area=0.08, flip=True))
PREPROCESS = Preprocess(resolution=24)


@pytest.fixture
def photos() -> list[Path]:
    """Return twelve real photographs, 256 x 256 and 224 x 224, or skip the test."""
    if not SHARED_DATA.exists():
        pytest.skip("../shared/data is absent")
    folders = (
        sorted((SHARED_DATA / "photos7").iterdir()) + sorted((SHARED_DATA / "imagenette_mini/train").iterdir())[:5]
    )
    return [sorted(folder.iterdir())[0] for folder in folders]


@pytest.fixture
def jpegs(tmp_path: Path) -> Split:
    """Return sixteen JPEG files of different sizes; some are large enough to be decoded at a reduced size."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(16):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        paths.append(str(tmp_path / f"{number:02d}.jpg"))
        small.resize((60 + 30 * number, 300 - 15 * number), Image.Resampling.BICUBIC).save(paths[-1])
    return Split(sources=paths, labels=np.arange(16))


def all_batches(load, split: Split, **options) -> tuple[np.ndarray, np.ndarray]:
    batches = list(train_batches(load, split.labels, RECIPE, PREPROCESS, epoch=1, **options))
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def differences(path: Path, resolution: int, seed: int) -> np.ndarray:
    """Return the difference in levels between a view and Pillow's: the same crop of the whole image, bicubic."""
    preprocess = Preprocess(resolution=resolution)
    load = cached_loader(Split(sources=[str(path)], labels=np.zeros(1)), preprocess, limit=0)
    assert isinstance(load(0), EncodedJpeg)
    found = augmented(load(0), RECIPE, preprocess, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    image = Image.open(path).convert("RGB")
    box = random_box(image.height, image.width, rng=rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    step = reduction_for(min(box[2] - box[0], box[3] - box[1]), least=2 * resolution)
    box = (box[0] // step * step, box[1] // step * step, -(-box[2] // step) * step, -(-box[3] // step) * step)
    view = np.asarray(image.crop(box).resize((resolution, resolution), Image.Resampling.BICUBIC)).astype(int)
    return np.abs(found - (view[:, ::-1] if rng.random() < 0.5 else view)).ravel()


@pytest.mark.parametrize(
    "resolution, mean, most, psnr", [(224, 0.05, 1, 60), (96, 0.1, 2, 55), (32, 0.7, 8, 45)], ids=str
)
def test_views_of_real_photographs_are_pillows_bicubic_ones(
    photos: list[Path], resolution: int, mean: float, most: float, psnr: float
) -> None:
    # At 224 nothing is decoded at a reduced size, at 32 nearly everything.
    found = np.concatenate([differences(path, resolution, seed) for path in photos for seed in (0, 1)])
    assert found.mean() < mean
    assert np.quantile(found, 0.999) <= most
    assert 10 * np.log10(255**2 / (found.astype(float) ** 2).mean()) > psnr


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    channels=st.integers(1, 5),
    resolution=st.integers(1, 40),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    mirror=st.booleans(),
)
def test_a_square_is_resized_as_pillow_does(height, width, channels, resolution, interpolation, mirror) -> None:
    # Smooth values: for noise, the two round and clip overshoots at different moments.
    small = np.random.default_rng(height).integers(40, 216, (4, 5, channels), dtype=np.uint8)
    planes = [np.asarray(Image.fromarray(small[..., i]).resize((width, height), 2)) for i in range(channels)]
    size, resampling = (resolution, resolution), Image.Resampling[interpolation.upper()]
    expected = np.stack([np.asarray(Image.fromarray(plane).resize(size, resampling)) for plane in planes], axis=-1)
    image = np.stack(planes, axis=-1)
    image.setflags(write=False)
    found = resize_square(image, resolution=resolution, interpolation=interpolation, mirror=mirror)
    assert found.shape == (resolution, resolution, channels)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - (expected[:, ::-1] if mirror else expected)).max() <= 1


def test_views_depend_neither_on_what_is_kept_nor_on_the_order_nor_on_threads(jpegs: Split) -> None:
    limit = 60_000  # of some 110,000 bytes
    first, labels = all_batches(cached_loader(jpegs, PREPROCESS, limit=limit), jpegs)
    assert sorted(labels) == list(range(16))
    asked = cached_loader(jpegs, PREPROCESS, limit=limit)
    kinds = [type(asked(index)) for index in reversed(range(16))]
    assert set(kinds) == {np.ndarray, EncodedJpeg}
    for load in (asked, cached_loader(jpegs, PREPROCESS, limit=limit)):
        again, _ = all_batches(load, jpegs, workers=3, ahead=5)
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("limit", [0, 30_000, 10**9])
def test_no_more_is_kept_than_the_limit(jpegs: Split, limit: int) -> None:
    load = cached_loader(jpegs, PREPROCESS, limit=limit)
    images = [load(index) for index in range(16)]
    kept = [p for index, p in enumerate(images) if isinstance(p, np.ndarray) and load(index) is p]
    assert sum(p.nbytes for p in kept) <= limit
    assert len(kept) == {0: 0, 10**9: 16}.get(limit, len(kept))
    assert limit != 30_000 or sum(p.nbytes for p in kept) > limit / 2
    assert all(min(p.shape[:2]) <= 48 or min(p.shape[:2]) == 60 for p in kept)


def test_files_that_vanish_or_are_cut_are_replaced_however_far_they_were_read(jpegs: Split) -> None:
    Path(jpegs.sources[3]).unlink()
    whole = Path(jpegs.sources[6]).read_bytes()
    Path(jpegs.sources[6]).write_bytes(whole[: len(whole) * 2 // 3])
    load = cached_loader(jpegs, PREPROCESS, limit=0)
    assert isinstance(load(6), EncodedJpeg)  # its header is intact, so only decoding fails
    images, labels = all_batches(load, jpegs, workers=2)
    assert sorted(labels) == [0, 1, 2, 4, 4, 5, 7, 7, *range(8, 16)]
    assert images.shape == (16, 24, 24, 3)
    for path in jpegs.sources:
        Path(path).unlink(missing_ok=True)
    with pytest.raises(ImageError, match="16 images in a row cannot be read"):
        all_batches(load, jpegs)


@pytest.mark.parametrize("view", ["crop", "shift", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_view_has_the_networks_size_and_channels(jpegs: Split, view: str, channels: int) -> None:
    recipe = Recipe(train=Train(batch_size=8), augment=Augment(view=view))
    preprocess = Preprocess(resolution=24, mean=(0.5,) * channels, std=(0.5,) * channels)
    for limit in (0, 10**9):
        load = cached_loader(jpegs, preprocess, limit=limit)
        for images, _ in train_batches(load, jpegs.labels, recipe, preprocess, epoch=0):
            assert images.shape == (8, 24, 24, channels)
            assert images.dtype == np.uint8
            assert images.std() > 10


@pytest.mark.parametrize("view", ["crop", "shift", "none"])
@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_views_of_wide_images_show_their_two_halves(mode, view, tmp_path) -> None:
    """Partly decoded file, cached image and array give the same; a centre crop sees neither end of the image."""
    pixels = np.zeros((80, 640, 3), np.uint8)
    pixels[:, :240], pixels[:, 240:400], pixels[:, 400:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    path = tmp_path / "wide.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    recipe = Recipe(augment=Augment(view=view, min_area=0.6, flip=False))
    preprocess = Preprocess(resolution=24, crop=1.0, mode=mode, mean=(0.0,) * 3)
    loads = [
        cached_loader(Split(sources=[source], labels=np.zeros(1)), preprocess, limit=limit)
        for source, limit in ((str(path), 0), (str(path), 2**20), (pixels, 0))
    ]
    assert isinstance(loads[0](0), EncodedJpeg)
    for seed in range(4):
        views = [augmented(load(0), recipe, preprocess, rng=np.random.default_rng(seed)) for load in loads]
        for image in views:
            assert image.shape == (24, 24, 3)
            for channel in range(3):
                assert image[..., channel].max() > 200
            assert np.abs(image.astype(int) - views[2]).mean() < 6  # they differ by how far the file was shrunk
        bars = (views[0].max(axis=(1, 2)) < 60).sum()
        assert (bars > 15) == (mode == "pad")


def test_a_kept_image_is_no_larger_than_its_square_needs(tmp_path) -> None:
    source = np.zeros((200, 2000, 3), np.uint8)
    for mode, shape in (("center", (48, 480, 3)), ("squash", (48, 48, 3)), ("pad", (5, 48, 3))):
        preprocess = Preprocess(resolution=24, crop=1.0, mode=mode)
        load = cached_loader(Split(sources=[source], labels=np.zeros(1)), preprocess)
        assert load(0).shape == shape
