"""The confusion matrix of a report, drawn by matplotlib."""

from typing import TYPE_CHECKING

import numpy as np

from effnet.report.figure import BLUE, INK, VERMILLION, figure_svg, new_figure, style
from effnet.report.model import Report
from effnet.report.text import printable, width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED_CLASSES = 40
_COUNTED_CLASSES = 20


def confusion_svg(report: Report) -> str:
    """Return the confusion matrix as SVG, true classes down and predicted ones across.

    Shades are shares of a true class; correct predictions are blue, wrong ones vermillion. Cells show their counts
    up to 20 classes, and every class is named up to 40.
    """
    counts = np.asarray(report.test.confusion, dtype=float)
    number = len(counts)
    names = [printable(name, columns=22) for name in report.dataset.class_names]
    named = number <= _NAMED_CLASSES
    side = min(max(0.4 * number, 1.4), 6.0) if named else 5.6
    with style():
        figure = new_figure(side + 1.2, side + 1.0)
        axes = figure.add_subplot()
        axes.grid(visible=False)
        axes.spines[["top", "right"]].set_visible(True)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(_shades(shares), interpolation="none", aspect="equal")
        axes.set_xlabel("Predicted")
        axes.set_ylabel("True")
        if named:
            size = 8.5 if number <= _COUNTED_CLASSES else 6.5
            text = {"parse_math": False, "fontsize": size}
            # About 0.08 inches a letter: names that would overlap are rotated.
            upright = max(map(width, names)) * 0.08 > side / number
            axes.set_xticks(range(number), names, rotation=90 if upright else 0, **text)
            axes.set_yticks(range(number), names, **text)
        axes.tick_params(length=0 if named else 3)
        if number <= _COUNTED_CLASSES:
            _write_counts(axes, counts, shares)
    wide = named and any(width(name) > len(name) for name in names)
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


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.argwhere(counts > 0):
        strong = shares[row, column] > 0.5
        colour = "white" if strong else INK
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
