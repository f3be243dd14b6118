"""Writers of small annotated data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image(tmp_path):
    """Return a writer of a PNG or JPEG file of (width, height), with an EXIF orientation if given."""

    def write(name, size=(40, 30), *, orientation=0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path, exif=exif)
        return path

    return write


@pytest.fixture
def write_text(tmp_path):
    """Return a writer of a text or JSON file."""

    def write(name, content, *, encoding="utf-8") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            path.write_text(text, encoding=encoding, newline="\n")
        return path

    return write
