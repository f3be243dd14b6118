"""Write the real files that the tests of effnet.data read."""

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import SHARED

SHARED_DATA = SHARED / "data"


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Return the folder of a shared data set, or skip the test if it is absent."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"../shared/data/{name} is absent")
        return path

    return find


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.fixture
def png_bytes() -> Callable[..., bytes]:
    """Return a writer of PNG files that Pillow itself cannot write: 16-bit colour, or a false header."""

    def write(values: np.ndarray, *, size: tuple[int, int] | None = None) -> bytes:
        height, width, channels = values.shape
        color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        depth = 8 * values.dtype.itemsize
        width_said, height_said = size or (width, height)
        header = struct.pack(">IIBBBBB", width_said, height_said, depth, color_type, 0, 0, 0)
        rows = values.astype(values.dtype.newbyteorder(">"))
        raw = b"".join(b"\0" + rows[i].tobytes() for i in range(height))
        body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(raw)) + _chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    return write


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of class folders: {"train/cat": 3} makes three different PNG files in train/cat."""

    def write(counts: Mapping[str, int], *, root: str = "data", mode: str = "RGB") -> Path:
        rng = np.random.default_rng(0)
        for folder, count in counts.items():
            path = tmp_path / root / folder
            path.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 256, size=(6, 8) if mode == "L" else (6, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"{i:03d}.png")
        return tmp_path / root

    return write
