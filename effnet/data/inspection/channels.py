"""The number of input channels, from the headers of some images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effnet.data.images.decode import ImageHeader, image_header
from effnet.data.sources import encoded
from effnet.errors import DataError, ImageError

_NUM_HEADERS = 64


def choose_channels(sources: Sequence[Any], *, seed: int) -> tuple[int, str]:
    """Return the number of channels and a sentence on it: 1 for grey images, that of .npy files, else 3.

    The sampled images depend on `seed`. Raises DataError if .npy files differ from the others.
    """
    chosen = np.random.default_rng(seed).permutation(len(sources))[: 4 * _NUM_HEADERS]
    headers: list[ImageHeader] = []
    for index in chosen:
        try:
            headers.append(image_header(encoded(sources[index])))
        except ImageError:
            continue
        if len(headers) == _NUM_HEADERS:
            break
    sampled = f"of the {len(headers)} sampled images"
    arrays = {header.channels for header in headers if header.format == "NPY"}
    if arrays - {1, 3}:
        if len({(header.format == "NPY", header.channels) for header in headers}) > 1:
            raise DataError(
                f"all images must have the same channels, but .npy files have {sorted(arrays)} and others "
                f"differ; set channels=N"
            )
        (number,) = arrays
        return number, f"The input has {number} channels: all {sampled} are .npy with that many."
    if headers and all(header.channels <= 2 for header in headers):
        return 1, f"The input has 1 channel: all {sampled} are grey."
    return 3, f"The input has 3 channels: not all {sampled} are grey."
