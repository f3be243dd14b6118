"""The mistakes of a score with their images, for a page."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import islice, zip_longest
from typing import Any

import numpy as np

_IMAGE_SIDE = 176


def mistakes_shown(mistakes: Sequence[Any], images: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    """Return mistakes, dataclasses, with their images in the same order, as far as there are any."""
    # A report read back from its file has no images; the text is still worth showing.
    some = islice(images, len(mistakes))
    shown = [{"image": _data_url(image), "small": max(image.shape[:2]) < 96} for image in some]
    none: Any = {"image": None, "small": False}
    return [asdict(mistake) | extra for mistake, extra in zip_longest(mistakes, shown, fillvalue=none)]


def _data_url(pixels: np.ndarray) -> str | None:
    """Return an image [H, W, C] as a small PNG in a data URL, of its first three bands or its first."""
    from PIL import Image

    bands = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    if not bands.size:
        return None
    seen = bands[..., :3] if bands.shape[2] >= 3 else bands[..., 0]
    image = Image.fromarray(np.ascontiguousarray(seen, dtype=np.uint8))
    image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
