"""Activation maps drawn over images: orange where the image speaks for an answer, blue where it speaks against it."""

import base64
from io import BytesIO

import numpy as np

# Okabe and Ito's vermillion and blue, safe for colour-blind readers. Source: https://jfly.uni-koeln.de/color/
_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)
# The share of the colour at the strongest place; the image must stay visible there.
_STRONGEST = 0.72
_SHADED = 0.45
_QUALITY = 85


def upsampled(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a map [rows, columns] at the size of its image, float32 [height, width], bilinearly."""
    from PIL import Image

    small = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def overlay(image: np.ndarray, values: np.ndarray, *, limit: float | None = None) -> np.ndarray:
    """Return an image, uint8 [height, width, channels], under the colours of a map [rows, columns], uint8 [..., 3].

    `limit` is the value of the strongest colour, by default the map's largest in size. The image is shown in grey, so
    that its colours are not taken for the map's.
    """
    limit = limit or float(np.abs(values).max()) or 1.0
    large = np.clip(upsampled(values, image.shape[0], image.shape[1]) / limit, -1, 1)
    share = _STRONGEST * np.abs(large)[..., None]
    colours = np.where(large[..., None] > 0, np.array(_FOR, np.float32), np.array(_AGAINST, np.float32))
    grey = as_rgb(image).astype(np.float32).mean(2, keepdims=True)
    lighter = grey * (1 - _SHADED) + 255 * _SHADED
    return np.round(lighter * (1 - share) + colours * share).astype(np.uint8)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return uint8 [height, width, channels] of any channels as its first three or its first, [height, width, 3]."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def data_url(image: np.ndarray) -> str:
    """Return uint8 [height, width, 3] as a JPEG file in a data URL."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def place_in_words(values: np.ndarray) -> str:
    """Return the place of a map's largest value, such as "top left"."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    down = ("top", "middle", "bottom")[int(3 * (row + 0.5) / values.shape[0])]
    across = ("left", "centre", "right")[int(3 * (column + 0.5) / values.shape[1])]
    return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"


def half_share(values: np.ndarray) -> float:
    """Return the least share of a map's places that has half of the sum of its positive values; 1 if none is."""
    positive = np.sort(np.maximum(values, 0).ravel())[::-1]
    if not positive.any():
        return 1.0
    return float((np.searchsorted(np.cumsum(positive), positive.sum() / 2) + 1) / positive.size)
