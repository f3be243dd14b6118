"""A confusion matrix, drawn by matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from effnet.report.plots.figure import BLUE, INK, VERMILLION, figure_svg, new_figure, style
from effnet.report.text import printable, width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED_CLASSES = 40
_COUNTED_CLASSES = 20
# A smaller share would read as 0 %.
_LEAST_SHOWN = 0.005


def confusion_svg(
    confusion: Sequence[Sequence[int]], names: Sequence[str], *, shares: bool = False, background: bool = False
) -> str:
    """Return a confusion matrix as SVG, true classes down and predicted ones across.

    Shades are shares of a true class; correct predictions are blue, wrong ones vermillion. Cells show their counts, or
    the `shares` in percent, up to 20 classes, and every class is named up to 40. The last one may be the `background`
    of a detector: it has no images, so its shades are shares of all others.
    """
    counts = np.asarray(confusion, dtype=float)
    number = len(counts)
    shown = [printable(name, columns=22) for name in names]
    named = number <= _NAMED_CLASSES
    side = min(max(0.4 * number, 1.4), 6.0) if named else 5.6
    with style():
        figure = new_figure(side + 1.2, side + 1.0)
        axes = figure.add_subplot()
        axes.grid(visible=False)
        axes.spines[["top", "right"]].set_visible(True)
        wholes = counts.sum(axis=1)
        if background:
            wholes[-1] = max(wholes[:-1].sum(), wholes[-1])
        parts = counts / np.maximum(wholes, 1)[:, None]
        axes.imshow(_shades(parts), interpolation="none", aspect="equal")
        axes.set_xlabel("Predicted")
        axes.set_ylabel("True")
        if named:
            size = 8.5 if number <= _COUNTED_CLASSES else 6.5
            text = {"parse_math": False, "fontsize": size}
            # About 0.08 inches a letter: names that would overlap are rotated.
            upright = max(map(width, shown)) * 0.08 > side / number
            axes.set_xticks(range(number), shown, rotation=90 if upright else 0, **text)
            axes.set_yticks(range(number), shown, **text)
        axes.tick_params(length=0 if named else 3)
        if number <= _COUNTED_CLASSES:
            _write_cells(axes, counts, parts, shares=shares)
    wide = named and any(width(name) > len(name) for name in shown)
    # matplotlib cannot measure glyphs it lacks, and such scripts are wider than it thinks.
    return figure_svg(figure, name="confusion", tight=True, pad_inches=0.4 if wide else 0.05)


def _shades(shares: np.ndarray) -> np.ndarray:
    """Return [C, C, 4] colours; empty cells are clear, so that the page shows through, light or dark."""
    from matplotlib.colors import to_rgb

    shades = np.empty((*shares.shape, 4))
    shades[..., :3] = to_rgb(VERMILLION)
    shades[np.eye(len(shares), dtype=bool), :3] = to_rgb(BLUE)
    # One wrong prediction among hundreds must still be visible.
    shades[..., 3] = np.where(shares > 0, 0.15 + 0.85 * shares, 0)
    return shades


def _write_cells(axes: "Axes", counts: np.ndarray, parts: np.ndarray, *, shares: bool) -> None:
    for row, column in np.argwhere(counts > 0):
        part, count = parts[row, column], counts[row, column]
        if shares and part < _LEAST_SHOWN:
            continue
        text = f"{100 * part:.0f} %" if shares else f"{count:,.0f}"
        size = 8 if len(text) < 5 else 6.5
        colour = "white" if part > 0.5 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
