"""Images with file names that break programs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NASTY = ("[1].png", "a b.png", "new\nline.png", "quote\"'.png", "é 😀.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of one image under several names, one of them in a subfolder."""
    folder = tmp_path / "images"
    (folder / "deep er").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "plain.png")
    for name in (*NASTY, "deep er/last.png"):
        shutil.copy(folder / "plain.png", folder / name)
    return folder
