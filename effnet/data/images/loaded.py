"""A decoded image that Pillow resizes as it lies in its memory, without an array between."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

# The modes whose values are those of the array, by its channels.
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A loaded Pillow image of mode L or RGB with the attributes of its array, uint8 [height, width, channels]."""

    image: Image.Image

    dtype = np.dtype(np.uint8)
    ndim = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.image.height, self.image.width, len(self.image.getbands())

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the array of some rows one after the other."""
        start, stop, step = rows.indices(self.image.height)
        assert step == 1, "rows are read one after the other"
        found = np.array(self.image.crop((0, start, self.image.width, stop)))
        return found if found.ndim == 3 else found[..., None]


def loaded_as_is(image: Image.Image, channels: int, *, orientation: int) -> Loaded | None:
    """Return a loaded image of 8 bits if it is upright and has these channels; None if it must be converted."""
    fits = orientation == 1 and image.mode == _MODES.get(channels) and "transparency" not in image.info
    return Loaded(image) if fits else None
