"""The features of images by pretrained weights, which an audit and suggestions share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from effnet.errors import WeightsError
from effnet.training.transfer.features import Extractor, make_extractor
from effnet.weights.pretrained import adapted, load_backbone

_RGB = 3
Progress = Callable[[str, int, int], None]
"""Called with a title, the number done and the total."""


@contextmanager
def backbone(
    weights: str, *, model: str | None, channels: int | None = None, side: int | None = None
) -> Iterator[Extractor]:
    """Yield the extractor of pretrained weights, for images of `channels` at `side` pixels; by default their own.

    Raises WeightsError for weights that cannot be read, or adapted to the channels.
    """
    found = load_backbone(weights, model=model)
    wanted = channels or found.spec.in_channels
    if found.spec.in_channels not in (_RGB, wanted):
        raise WeightsError(
            f"weights must read {_RGB} channels, or as many as the images have, {wanted}; {weights} reads "
            f"{found.spec.in_channels}: name others"
        )
    found = adapted(found, num_classes=1, in_channels=wanted, resolution=side or found.preprocess.resolution)
    with TemporaryDirectory() as folder:
        yield make_extractor(found.spec, found.state, found.preprocess, Path(folder) / "backbone.onnx")


def titled(title: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    """Return `progress` with this title."""
    return None if progress is None else lambda done, total: progress(title, done, total)
