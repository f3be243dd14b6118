"""A bundle and a folder of images for the page, both with class names that are hostile HTML."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from page_names import HOSTILE
from PIL import Image

IMAGES = 8
"""The images of each class."""


def _write_bundle(folder: Path) -> None:
    from bundles import make_bundle

    from effnet.bundle.config import read_config, read_maps, write_digests
    from effnet.bundle.weights import load_state
    from effnet.runtimes.digests import digests_of
    from effnet.runtimes.write import write_export

    (bundle := folder / "bundle").mkdir(parents=True)
    make_bundle(bundle, class_names=HOSTILE)
    config, state = read_config(bundle), load_state(bundle)
    write_export("onnx", bundle, config, state, maps=True)
    write_export("onnx-features", bundle, config, state)
    write_digests(bundle, digests_of(bundle, ["onnx", "onnx-features"]), maps=["model.onnx"])
    assert read_maps(bundle) == ("model.onnx",)
    counts = [[5, 1, 2], [0, 8, 0], [3, 0, 5]]
    source = f"{HOSTILE[0]}/00.png"
    mistakes = [{"source": source, "label": HOSTILE[0], "predicted": HOSTILE[2], "probability": 0.7}]
    (bundle / "report.json").write_text(json.dumps({"test": {"confusion": counts, "mistakes": mistakes}}))


@pytest.fixture(scope="session")
def page_bundle(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A classifier of the hostile classes with maps, embeddings and a report; not to change."""
    return made_once("page_bundle", _write_bundle) / "bundle"


@pytest.fixture(scope="session")
def page_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the hostile classes, 24 images in all; not to change."""
    root, rng = tmp_path_factory.mktemp("page") / "images", np.random.default_rng(0)
    for name in HOSTILE:
        os.makedirs(root / name)
        for i in range(IMAGES):
            pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).resize((140, 120), Image.Resampling.BICUBIC).save(root / name / f"{i:02d}.png")
    return root
