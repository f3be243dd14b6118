"""A decoded image that Pillow resizes as it lies in its memory, without an array between."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from effnet.data.images.pixels import over_white, pieces

# The modes whose values are those of the array, by its channels.
_MODES = {1: "L", 3: "RGB"}

LARGE_PIXELS = 2**22
"""From this size on, memory is saved at the cost of some time: channels are taken one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A loaded Pillow image with the attributes of its array, uint8 [height, width, channels].

    Its mode is L or RGB; or RGBA, if the image is large, whose alpha is 255 everywhere and no channel.
    """

    image: Image.Image

    dtype = np.dtype(np.uint8)
    ndim = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.image.height, self.image.width, 1 if self.image.mode == "L" else 3

    def planes(self) -> Iterator[Image.Image]:
        """Yield the image, or each channel of one that has alpha: Pillow would copy it to resize it."""
        if self.image.mode == "RGBA":
            yield from (self.image.getchannel(channel) for channel in "RGB")
        else:
            yield self.image

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the array of some rows one after the other."""
        start, stop, step = rows.indices(self.image.height)
        assert step == 1, "rows are read one after the other"
        found = np.array(self.image.crop((0, start, self.image.width, stop)))
        return found[..., :3] if found.ndim == 3 else found[..., None]


def loaded_as_is(image: Image.Image, channels: int, *, orientation: int) -> Loaded | None:
    """Return a loaded image of 8 bits if it is upright and has these channels; None if it must be converted.

    A large RGBA image is composited over white in its own memory.
    """
    if orientation != 1:
        return None
    if image.mode == _MODES.get(channels) and "transparency" not in image.info:
        return Loaded(image)
    if channels == 3 and image.mode == "RGBA" and image.width * image.height >= LARGE_PIXELS:
        for box in pieces((0, 0, *image.size)):
            image.paste(over_white(image.crop(box)), box[:2])
        return Loaded(image)
    return None
