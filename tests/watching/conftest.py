"""A bundle that knows colours, and clips of them."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def colour_bundle(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A classifier of blue, green and red; not to change."""
    from clips import write_colour_bundle

    return made_once("colour_bundle", write_colour_bundle)


@pytest.fixture(scope="session")
def colour_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of blue, three of red and two of green, 10 frames a second; not to change."""
    pytest.importorskip("av", reason="the extra video is not installed")
    from clips import plain, write_clip

    images = [plain("blue")] * 20 + [plain("red")] * 30 + [plain("green")] * 20
    return write_clip(tmp_path_factory.mktemp("clips") / "colours.mp4", images)


def _places(root: Path) -> None:
    from dense_bundles import write_detector, write_segmenter

    for name, write in (("det", write_detector), ("seg", write_segmenter)):
        (root / name).mkdir(parents=True)
        write(root / name)


@pytest.fixture(scope="session")
def bundles_of_places(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder of a detector, det, and a segmenter, seg; not to change."""
    return made_once("bundles_of_places", _places)
