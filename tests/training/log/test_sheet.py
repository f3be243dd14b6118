"""Golden contact sheets of augmented images. After an intended change: pytest THIS --update-golden"""

import dataclasses
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from places import GOLDEN
from sklearn.datasets import load_sample_image

from effnet.data.preprocess import Preprocess, resample
from effnet.training.log.sheet import render_sheet
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Policy, Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

FOLDER = GOLDEN / "augment"
PREPROCESS = Preprocess(resolution=96)
# Whole images, so that a view can be compared with its original; crops and flips have a sheet of their own.
WHOLE = {"augment.view": "none", "augment.flip": False}
SHEETS = {name: {"augment.policy": name, **WHOLE} for name in get_args(Policy) if name != "none"} | {
    "crops_and_flips": {},
    "jitter_and_erasing": {"augment.rotation": 20.0, "augment.jitter": 0.4, "augment.erasing": 0.5, **WHOLE},
    "mixup": {"augment.mixup": 0.8, **WHOLE},
    "cutmix": {"augment.cutmix": 1.0, **WHOLE},
}


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Return scikit-learn's two photographs, a quarter as wide."""
    images = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return [resample(p, width=p.shape[1] // 4, height=p.shape[0] // 4, interpolation="bicubic") for p in images]


def sheet_of(photos, values, **changed) -> Image.Image:
    preprocess = dataclasses.replace(PREPROCESS, **changed)
    return render_sheet(photos.__getitem__, len(photos), with_values(Recipe(), values), preprocess, columns=6)


def with_few_colours(sheet: Image.Image) -> Image.Image:
    """Return the sheet in 128 colours, a third of the bytes."""
    return sheet.quantize(palette=sheet.quantize(128), dither=Image.Dither.FLOYDSTEINBERG)


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_looks_as_it_did(name, photos, request):
    sheet, path = with_few_colours(sheet_of(photos, SHEETS[name])), FOLDER / f"{name}.png"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, optimize=True)
    with Image.open(path) as golden:
        expected = np.asarray(golden.convert("RGB")).astype(int)
    found = np.asarray(sheet.convert("RGB")).astype(int)
    assert found.shape == expected.shape
    # Rounding elsewhere may change pixels and the choice of colours, but hardly the means over 4 x 4 pixels.
    blocks = (found - expected)[4:, 4:].reshape(len(photos), 37, 4, -1, 25, 4, 3).mean((2, 5))
    tiles = np.abs(blocks).mean((1, 3, 4))
    row, column = np.unravel_index(tiles.argmax(), tiles.shape)
    assert tiles.max() < 2, (
        f"row {row + 1}, column {column} of {path.name} differs; look at what --update-golden writes"
    )


def test_no_golden_sheet_is_left_over():
    assert {path.stem for path in FOLDER.iterdir()} == set(SHEETS)


def test_without_any_change_a_view_is_the_original(photos):
    sheet = np.asarray(sheet_of(photos, WHOLE))
    first, second = sheet[4:100, 4:100], sheet[4:100, 104:200]
    assert np.array_equal(first, second)
    assert first.std() > 20


def test_small_grey_images_are_enlarged(photos):
    grey = [photo.mean(2, keepdims=True).astype(np.uint8)[:30, :30] for photo in photos]
    sheet = sheet_of(grey, SHEETS["autoaugment"], resolution=32, mean=(0.5,), std=(0.25,))
    assert sheet.size == sheet_of(photos, {}).size
