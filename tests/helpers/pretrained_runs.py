"""A narrow network without a classifier, and folders of images, for the tests of pretraining."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_runs import tiny_spec

from effnet.arch.spec import ArchSpec


def tiny_headless() -> ArchSpec:
    """Return the narrowest network without a classifier, for grey images of 16 pixels."""
    return dataclasses.replace(tiny_spec(), num_classes=0)


def striped(root: Path, count: int, *, seed: int, classes: bool) -> Path:
    """Write noisy grey images of 16 x 16 pixels, plain or striped, into `root` or a folder for each kind."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        name = ("plain", "rows", "columns")[i % 3]
        wave = 50 * np.sign(np.sin(np.arange(16) * np.pi / 2 + rng.uniform(0, 6.3)))
        pattern = {"plain": 0, "rows": wave[:, None], "columns": wave[None]}[name]
        pixels = np.clip(128 + pattern + rng.normal(0, 40, (16, 16)), 0, 255).astype(np.uint8)
        folder = root / name if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root
