"""The class of each pixel of an image of any size, by a segmenter."""

from collections.abc import Callable, Mapping

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.data.preprocess import Preprocess
from effnet.tasks.masks.plan import segment
from effnet.tasks.masks.record import Segmented


def segment_image(
    compute: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    image: np.ndarray,
    arch: ArchSpec,
    preprocess: Preprocess,
    *,
    threshold: float | None = None,
) -> Segmented:
    """Return the classes of an upright image, uint8 [height, width, channels], at its size.

    It is shown whole or, if the preprocessing has a scale, in overlapping windows. There is no threshold: every pixel
    has a class.
    """
    height, width = preprocess.size
    return segment(
        image, lambda windows: compute(windows)["mask"], input_height=height, input_width=width, fill=preprocess.fill,
        scale=preprocess.scale, interpolation=preprocess.interpolation,
    )  # fmt: skip
