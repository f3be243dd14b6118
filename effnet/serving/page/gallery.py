"""The images of `effnet serve --review DATA`: their files, and their labels as a model numbers them."""

import io
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Semaphore

import numpy as np
from PIL import Image

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import list_source
from effnet.data.images.decode import decoded_image
from effnet.data.preprocess import Preprocess
from effnet.data.sources.folder import list_images
from effnet.data.sources.source import Source, Stored, encoded, source_name
from effnet.data.view.evaluation import eval_decoding
from effnet.errors import DataError, InputError
from effnet.report.explanation.overlay import as_rgb
from effnet.system.text import printable
from effnet.weights.labels import choose_images

SIDES = (176, 960)
"""The longest sides of the two sizes in which images are shown."""

_QUALITY = 85
# Pixels this few are sent as they are: JPEG would blur them.
_SMALL = 128
# Thumbnails that are decoded at once; the others wait, so that a page full of them takes no core from requests.
_AT_ONCE = Semaphore(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """Images by number: their sources, and their names, which are paths below `place`.

    `token` differs from that of any other gallery, so that browsers do not mix their images up.
    """

    place: str
    sources: Sequence[str | Stored]
    names: Sequence[str]
    token: str = field(default_factory=lambda: f"{time.time_ns():x}")

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the images: the class numbers of some, and which are of the bundle's own test split.

    `note` says why there are no labels, if so.
    """

    labels: Mapping[int, int] = field(default_factory=dict)
    tested: frozenset[int] = frozenset()
    note: str = ""


def read_gallery(place: str) -> Gallery:
    """Return the images of a folder, with class folders or without, or of a manifest; raise DataError if it has none.

    Raises InputError for images without names, such as the built-in digits.
    """
    try:
        listing = list_source(place)
    except DataError:
        if not os.path.isdir(place) or not (paths := list_images(place).paths):
            raise
        root = os.path.join(place, "")
        names = [str(path).removeprefix(str(root)).replace(os.sep, "/") for path in paths]
        return Gallery(place=place, sources=paths, names=names)
    sources = [source for part in listing.parts.values() for source in part.sources]
    named = [source for source in sources if not isinstance(source, np.ndarray)]
    if len(named) < len(sources):
        raise InputError(
            f"--review must be a folder or a manifest, so that corrections can name its images; {printable(place)} "
            "holds images without names"
        )
    return Gallery(place=place, sources=named, names=[listing.relative(source_name(each, "")) for each in named])


def known_of(gallery: Gallery, folder: str | os.PathLike[str], config: ModelConfig) -> Known:
    """Return what the bundle `folder` knows of the images: labels by its classes, and its own test split."""
    try:
        every = choose_images(gallery.place, folder=folder, config=config, part="all").split
    except (DataError, InputError) as error:
        return Known(note=str(error))
    if every.labels.ndim != 1 or every.labels.dtype.kind != "i":
        return Known(note="their labels are of another kind than classes")
    numbers = {_key(source): number for number, source in enumerate(gallery.sources)}
    labels = {
        numbers[_key(source)]: int(label)
        for source, label in zip(every.sources, every.labels, strict=True)
        if _key(source) in numbers
    }
    chosen = choose_images(gallery.place, folder=folder, config=config)
    own = chosen.split.sources if chosen.part == "test" else ()
    return Known(labels=labels, tested=frozenset(numbers[_key(source)] for source in own if _key(source) in numbers))


def _key(source: Source) -> str:
    return source_name(source, "")


def shown_image(gallery: Gallery, number: int, preprocess: Preprocess, *, side: int) -> tuple[bytes, str]:
    """Return an image of at most `side` pixels as a file without metadata, and its media type.

    Raises ImageError if it cannot be read.
    """
    with _AT_ONCE, decoded_image(encoded(gallery.sources[number]), eval_decoding(preprocess)) as pixels:
        image = Image.fromarray(np.ascontiguousarray(as_rgb(pixels)))
        image.thumbnail((side, side))
    small, file = max(image.size) <= _SMALL, io.BytesIO()
    if small:
        image.save(file, format="PNG")
    else:
        image.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue(), "image/png" if small else "image/jpeg"
