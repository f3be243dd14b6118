"""Colours of classes that also colour-blind people tell apart, as long as there are few.

Source: Okabe and Ito, "Color Universal Design", jfly.uni-koeln.de/color; Machado, Oliveira, Fernandes, "A
Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG 15 (2009), table 1, severity 1.0.
"""

from functools import lru_cache

import numpy as np

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

BLUE: Colour = (0, 114, 178)
VERMILLION: Colour = (213, 94, 0)
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

_FIRST: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    BLUE,
    VERMILLION,
    (204, 121, 167),
)
# Protanopia, deuteranopia and tritanopia, in linear RGB.
_DEFICIENCIES = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_STEPS = 8
# Colours near black or white are those of texts and frames.
_LIGHTNESS = (28.0, 90.0)


@lru_cache(maxsize=16)
def colours(count: int) -> tuple[Colour, ...]:
    """Return the colours of classes 0 to `count` - 1, all different; those of a larger count begin with the same.

    After Okabe and Ito's, each is the one of a grid that is furthest from all before it, as the eye sees them that
    tells these two the least apart.
    """
    found = list(_FIRST[:count])
    values = np.round(np.linspace(0, 255, _STEPS)).astype(np.int64)
    grid = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = _seen(grid)
    inside = (seen[0, :, 0] >= _LIGHTNESS[0]) & (seen[0, :, 0] <= _LIGHTNESS[1])
    grid, seen = grid[inside], seen[:, inside]
    apart = np.full(len(grid), np.inf)
    for start in range(count):
        if start == len(found):
            red, green, blue = grid[int(apart.argmax())].tolist()
            found.append((red, green, blue))
        own = _seen(np.array(found[start : start + 1]))
        apart = np.minimum(apart, np.sqrt(((seen - own) ** 2).sum(2)).min(0))
    return tuple(found)


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever is the more readable on a colour, by WCAG's contrast."""
    luminance = float(_linear(np.array([colour]))[0] @ _TO_XYZ[1])
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def hex_of(colour: Colour) -> str:
    """Return a colour as text: #3C1098."""
    return "#{:02X}{:02X}{:02X}".format(*colour)


def _linear(rgb: np.ndarray) -> np.ndarray:
    share = rgb / 255.0
    linear: np.ndarray = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear


def _seen(rgb: np.ndarray) -> np.ndarray:
    """Return colours [n, 3] in CIELAB, [4, n, 3]: as seen with each deficiency, after that of the usual eye."""
    linear = _linear(rgb)
    every = np.stack([linear, *(linear @ matrix.T for matrix in _DEFICIENCIES)]).clip(0, 1)
    xyz = every @ _TO_XYZ.T / _TO_XYZ.sum(1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)
