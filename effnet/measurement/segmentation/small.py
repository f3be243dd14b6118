"""Small copies of masks as text, for a report: a PNG of the numbers of classes, in base64."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

_SIDE = 320


def small_mask(mask: np.ndarray) -> str:
    """Return a copy of a mask, integers [height, width] below 256, with sides of at most 320 pixels, as text."""
    height, width = mask.shape
    scale = max(1.0, max(height, width) / _SIDE)
    rows = ((np.arange(max(1, round(height / scale))) + 0.5) * height / max(1, round(height / scale))).astype(int)
    columns = ((np.arange(max(1, round(width / scale))) + 0.5) * width / max(1, round(width / scale))).astype(int)
    buffer = BytesIO()
    Image.fromarray(mask[rows][:, columns].astype(np.uint8)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def read_small_mask(text: str) -> np.ndarray:
    """Return the mask that `small_mask` made, uint8 [height, width]."""
    with Image.open(BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
        return np.asarray(image.convert("L"))
