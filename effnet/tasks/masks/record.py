"""The classes that a segmenter finds in one image."""

from dataclasses import dataclass

import numpy as np

from effnet.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmented:
    """The class of each pixel of the upright image, uint8 [height, width], and the share of pixels of each class."""

    mask: np.ndarray
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.uint8 or not self.mask.size:
            raise DataError(f"a mask must be uint8 [height, width]; got {self.mask.dtype} {list(self.mask.shape)}")


def segmented(mask: np.ndarray, *, num_classes: int) -> Segmented:
    """Return the answer with these classes; raise DataError for a class from `num_classes` on."""
    counts = np.bincount(mask.ravel(), minlength=num_classes)
    if len(counts) > num_classes:
        raise DataError(f"the classes of a mask must be from 0 to {num_classes - 1}; got {len(counts) - 1}")
    return Segmented(mask=mask, shares=tuple((counts / mask.size).tolist()))
