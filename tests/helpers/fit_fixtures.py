"""Fixtures of the tests of reports."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from procedures import UNTIMED, train

from effnet.arch.scale import with_total_stride


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes of 75 noisy grey images each, 16 x 16 pixels: plain, rows and columns; not to change.

    A head on the features of a network for digits tells them apart rather well, the whole network better.
    """
    root, rng = tmp_path_factory.mktemp("data") / "stripes", np.random.default_rng(0)
    for name in ("plain", "rows", "columns"):
        (root / name).mkdir(parents=True)
        for i in range(75):
            wave = 50 * np.sign(np.sin(np.arange(16) * np.pi / 2 + rng.uniform(0, 6.3)))
            pattern = {"plain": 0, "rows": wave[:, None], "columns": wave[None]}[name]
            pixels = np.clip(128 + pattern + rng.normal(0, 50, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def two_runs(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder of two runs of the digits, a and b, which differ in their seeds; not to change."""
    import effnet

    def make(folder: Path) -> None:
        narrow = with_total_stride(effnet.scale(effnet.get_spec("b0"), phi=-20, resolution=16), 8)
        spec = dataclasses.replace(narrow, stages=narrow.stages[:3])
        for seed, name in enumerate("ab"):
            train("digits", model=spec, epochs=2, seed=seed, out=folder / name, procedure=UNTIMED)

    return made_once("two_runs", make)
