"""The number of input channels, from the headers of some images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effnet.data.images.decode import ImageHeader, image_header
from effnet.data.sound.record import SOUND_SUFFIXES
from effnet.data.sources.source import encoded
from effnet.errors import DataError, ImageError

_NUM_HEADERS = 64


def choose_channels(sources: Sequence[Any], *, seed: int) -> tuple[int, str]:
    """Return the number of channels and a sentence on it: 1 for grey images, that of files with bands, else 3.

    Bands are those of .npy and TIFF files, the frames of DICOM files and, if all files have as many, the grey pages of
    TIFF files. The sampled images depend on `seed`. Raises DataError if files with bands differ from the others.
    """
    chosen = np.random.default_rng(seed).permutation(len(sources))[: 4 * _NUM_HEADERS]
    headers: list[ImageHeader] = []
    note = ""
    for index in chosen:
        try:
            headers.append(image_header(encoded(sources[index])))
        except ImageError:
            continue
        if len(headers) == _NUM_HEADERS:
            break
    sampled = f"of the {len(headers)} sampled images"
    arrays = {header.channels for header in headers if header.exact}
    if arrays - {1, 3}:
        if len({(header.exact, header.channels) for header in headers}) > 1:
            names = ", ".join(sorted({f".{header.format.lower()}" for header in headers if header.exact}))
            raise DataError(
                f"all images must have the same channels, but {names} files have {sorted(arrays)} and others "
                f"differ; set channels=N"
            )
        (number,) = arrays
        (kind, *others) = sorted({header.format for header in headers})
        what = "are" if others else f"are .{kind.lower()}"
        return number, f"The input has {number} channels: all {sampled} {what} with that many."
    pages = {header.pages for header in headers}
    if len(pages) == 1 and (number := max(pages)) > 1:
        return number, (
            f"The input has {number} channels: all {sampled} are TIFF files of {number} grey pages; channels=1 reads "
            "the first page only."
        )
    if max(pages, default=1) > 1:
        note = f" Of {sum(h.pages > 1 for h in headers)} TIFF files with several pages, the first page is read."
    if headers and all(header.format in SOUND_SUFFIXES for header in headers):
        return 1, "The input has 1 channel, the spectrogram."
    if headers and all(header.channels <= 2 for header in headers):
        return 1, f"The input has 1 channel: all {sampled} are grey.{note}"
    return 3, f"The input has 3 channels: not all {sampled} are grey.{note}"
