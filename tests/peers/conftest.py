"""The peers, imported once, and real images; what is absent is skipped and said so."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import peers
from effnet.data.images.decode import decode_image

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def _peer(importer: Callable[[], ModuleType], name: str) -> ModuleType:
    try:
        return importer()
    except ModuleNotFoundError as error:
        pytest.skip(f'{name} is absent ({error}); install it with: pip install "effnet[peers]"')


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The package timm, or a skip."""
    return _peer(peers.import_timm, "timm")


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """The package torchvision, models and transforms included, or a skip."""
    return _peer(peers.import_torchvision, "torchvision")


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """The package keras on torch, or a skip."""
    return _peer(peers.import_keras, "keras")


@pytest.fixture(scope="module")
def two_threads() -> Iterator[None]:
    """Let torch compute in at most two threads: more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """A few photographs, uint8 [height, width, 3]: those that scikit-learn carries and, where present, seven more."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    paths = sorted((Path(found.origin).parent / "datasets" / "images").glob("*.jpg"))
    assert len(paths) == 2
    return [decode_image(path) for path in (*paths, *(min(f.iterdir()) for f in sorted(SHARED.glob("photos7/*/"))))]


@pytest.fixture(scope="session")
def photo_paths() -> list[Path]:
    """Every photograph of the shared data sets, or a skip."""
    found = [p for name in ("photos7", "imagenette_mini") for p in sorted((SHARED / name).rglob("*.[jJ]*"))]
    if not found:
        pytest.skip("photos7 and imagenette_mini are absent: no folder shared/data beside the repository has them")
    return found
