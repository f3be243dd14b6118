"""The curves of several runs in one plot, each with its name at its end."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from effnet.report.plots.figure import BLUE, GREEN, MUTED, ORANGE, PURPLE, VERMILLION, figure_svg, new_figure, style
from effnet.report.runs.lenient import finite
from effnet.report.runs.read import Run
from effnet.report.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Against = Literal["epochs", "seconds"]

# Without sky blue: a dark page shows the blue as that.
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION)
# Dashes and gaps in line widths; each pattern is used once with every colour.
_DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0))
# The most names that have room beside a plot; the legend has them all.
_LABELLED, _LABEL_COLUMNS, _LABEL_GAP = 8, 16, 0.085


def look(index: int) -> tuple[str, tuple[float, ...]]:
    """Return colour and dashes of the run with this number."""
    return _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]


def curves_svg(
    runs: Sequence[Run], names: Sequence[str], key: str, *, title: str, against: Against, share: bool = False
) -> str | None:
    """Return the metric `key` of metrics.jsonl over epochs or seconds as SVG; None if no run has it.

    A `share` is shown in percent.
    """
    lines = {index: points for index, run in enumerate(runs) if (points := _points(run.history, key, against))}
    if not lines:
        return None
    with style():
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure = new_figure(4.9, 3.0)
        axes = figure.add_subplot()
        unit, words = _unit(lines) if against == "seconds" else (1.0, "Epoch")
        for index, points in lines.items():
            colour, dashes = look(index)
            x, y = [x / unit for x, _ in points], [y for _, y in points]
            # A single point has no line, so it gets a marker.
            marker = "o" if len(points) == 1 else None
            axes.plot(x, y, color=colour, linestyle=(0, dashes) if dashes else "solid", marker=marker, markersize=4)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel(words)
        axes.xaxis.set_major_locator(MaxNLocator(integer=against == "epochs", nbins=7))
        if share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        if len(lines) <= _LABELLED:
            _label(axes, {names[index]: (points[-1][0] / unit, points[-1][1]) for index, points in lines.items()})
    return figure_svg(figure, name=f"{key}-{against}")


def _points(history: Sequence[Mapping[str, Any]], key: str, against: Against) -> list[tuple[float, float]]:
    """Return (x, y) of the epochs that have both."""
    if against == "epochs":
        places: list[float | None] = [finite(row.get("epoch")) for row in history]
    else:
        places = list(accumulate(finite(row.get("seconds")) or 0.0 for row in history))
    pairs = zip(places, (finite(row.get(key)) for row in history), strict=True)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _unit(lines: Mapping[int, Sequence[tuple[float, float]]]) -> tuple[float, str]:
    """Return the seconds of one unit of the time axis, and its label."""
    longest = max(points[-1][0] for points in lines.values())
    if longest >= 3 * 3600:
        return 3600.0, "Hours of training"
    return (60.0, "Minutes of training") if longest >= 180 else (1.0, "Seconds of training")


def _label(axes: "Axes", ends: Mapping[str, tuple[float, float]]) -> None:
    """Write a name beside the end of each line, apart from each other, with a leader line if it had to move."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = spread([(y - low) / (high - low) for _, y in ends.values()], gap=_LABEL_GAP)
    for (name, end), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            printable(name, columns=_LABEL_COLUMNS),
            xy=end,
            xytext=(1.06, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            parse_math=False,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "linestyle": ":", "shrinkB": 2},
        )


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Move heights in 0..1 at least `gap` apart, in their order, by one pass up and one down."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    least, most = -math.inf, 1.0
    for index in order:
        placed[index] = least = max(placed[index], least + gap)
    for index in reversed(order):
        placed[index] = min(placed[index], most)
        most = placed[index] - gap
    return placed
