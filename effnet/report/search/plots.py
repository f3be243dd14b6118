"""Plots of an architecture search: its networks, its progress, and the network that it found beside the scaled one."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from effnet.arch.describe import StageRow
from effnet.report.model import Report
from effnet.report.plots.figure import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    figure_svg,
    new_figure,
    style,
)
from effnet.report.plots.front import pareto
from effnet.report.search.searched import Searched, SearchedRow, expected_best
from effnet.report.text import LABELS, short
from effnet.tasks.task import Figure

# The stages of the largest networks do not fit a page with a bar for each block.
_MOST_BARS = 60
_COLOURS = {"conv": SKY, "depthwise": GREEN, "mbconv": BLUE, "fused": ORANGE}


def search_svg(report: Report, figure: Figure) -> str:
    """Return the search as SVG: its networks by cost on the left, its progress beside random search on the right."""
    searched = report.searched
    assert searched is not None
    begun = any(row.generation >= 0 for row in searched.networks)
    panels = 1 if searched.scored or not begun else 2  # finalists alone show no progress
    with style():
        drawing = new_figure(8.8, 3.4 if panels == 2 else 2.6)
        _networks(drawing.add_subplot(1, panels, 1), searched, report, figure)
        if panels == 2:
            _progress(drawing.add_subplot(1, panels, 2), searched, figure)
    return figure_svg(drawing, name="search")


def networks_svg(report: Report) -> str:
    """Return the found network under the best scaled one as SVG: a bar for each block, as high as it is wide."""
    searched = report.searched
    assert searched is not None
    with style():
        drawing = new_figure(8.8, 3.6)
        upper = drawing.add_subplot(2, 1, 1)
        base = "Fine-tuned" if searched.scored else "Best scaled"
        _bars(upper, f"{base} network: {searched.base_title}", searched.base_stages)
        _bars(drawing.add_subplot(2, 1, 2, sharey=upper), f"Taken: {report.network.title}", report.network.stages)
    return figure_svg(drawing, name="found")


def _networks(axes: Any, searched: Searched, report: Report, figure: Figure) -> None:
    """Draw every network by its cost: the latency if that is limited, else the MACs."""
    name = "latency_ms" if report.budget.latency_ms is not None else "macs"
    rows = [row for row in searched.networks if name in row.figures and not searched.scored]
    for scaled, colour, label in ((False, ORANGE, "searched"), (True, BLUE, "scaled")):
        for whole, face in ((True, colour), (False, "none")):
            points = [
                (row.figures[name], _value(row.value, figure))
                for row in rows
                if row.scaled == scaled and (row.share == 1) == whole
            ]
            if points:
                told = label if whole else f"{label}, stopped early"
                axes.scatter(*zip(*points, strict=True), s=26, facecolors=face, edgecolors=colour, label=told, zorder=3)
    how = ", predicted" if any(name in row.predicted for row in rows) else ""
    final = [
        (row.figures[name], _value(row.mean, figure), row.winner) for row in searched.finals if name in row.figures
    ]
    for cost, value, winner in final:
        colour = VERMILLION if winner else MUTED
        axes.scatter([cost], [value], marker="D", s=36, color=colour, zorder=4)
    if final:
        measured = " (measured)" if how else ""
        axes.scatter([], [], marker="D", s=36, color=MUTED, label=f"final{measured}, taken in red")
        front = pareto([(cost, value) for cost, value, _ in final])
        axes.plot(*zip(*front, strict=True), color=MUTED, linewidth=1.0, drawstyle="steps-post", zorder=2)
    limit = getattr(report.budget, name)
    if limit is not None:
        axes.axvline(limit, color=INK, linewidth=0.9, linestyle=":")
    what = "The networks that were recovered a little" if searched.scored else "Every network that was trained"
    axes.set_title(what, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel(LABELS[name] + (f" (ms){how}; dotted: the budget" if name == "latency_ms" else ""))
    axes.set_ylabel(f"validation {figure.title}")
    if name == "macs":
        axes.xaxis.get_major_locator().set_params(nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
    _in_percent(axes, figure)
    axes.margins(x=0.15, y=0.1)
    axes.legend(fontsize=7, loc="best")


def _progress(axes: Any, searched: Searched, figure: Figure) -> None:
    """Draw the best value so far, and what random search is expected to have reached after as many trainings."""
    searching = [row for row in searched.networks if row.generation >= 0]
    best = list(accumulate((row.value for row in searching), max))
    numbers = range(1, len(best) + 1)
    axes.plot(
        numbers,
        [_value(value, figure) for value in best],
        color=ORANGE,
        drawstyle="steps-post",
        label=searched.algorithm,
    )
    drawn = _random_rows(searching)
    if len(drawn) > 2:
        expected = [_value(expected_best(drawn, number), figure) for number in numbers]
        label = f"random, expected from the {len(drawn)} first networks"
        axes.plot(numbers, expected, color=MUTED, linestyle="--", linewidth=1.2, label=label)
    scaled = max((row.value for row in searched.networks if row.scaled), default=None)
    if scaled is not None:
        axes.axhline(_value(scaled, figure), color=BLUE, linewidth=1.0, label="best scaled network")
    axes.set_title("The best so far", loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("networks trained")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _in_percent(axes, figure)
    axes.legend(fontsize=7, loc="best")


def _random_rows(rows: Sequence[SearchedRow]) -> tuple[float, ...]:
    """Return the values of the networks that were drawn at random: the unscaled ones of the first two generations."""
    return tuple(row.value for row in rows if row.generation <= 1 and not row.scaled)


def _bars(axes: Any, title: str, stages: Sequence[StageRow]) -> None:
    """Draw a bar for each block, with its channels as height; each kind of block has its colour."""
    shown = stages[:-1] if stages[-1].operator.startswith("pool") else stages
    left, most = 0.0, max(1.0, sum(row.layers for row in shown) / _MOST_BARS)
    for number, row in enumerate(shown):
        width = row.layers / most
        colour = next((colour for kind, colour in _COLOURS.items() if row.operator.startswith(kind)), PURPLE)
        for bar in range(row.layers):
            axes.bar(left + bar / most, row.channels, width=0.86 / most, align="edge", color=colour, linewidth=0)
        text = f"{_kind(row)}\n{row.channels} x {row.layers}"
        axes.annotate(
            text, (left + width / 2, row.channels), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=6, color=MUTED,
        )  # fmt: skip
        left += width + 0.6
        if row.stride > 1 and number:
            axes.axvline(left - width - 0.9, color=GRID, linewidth=1.4)
    axes.set_yscale("log")
    axes.set_ylabel("channels")
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.margins(x=0.01)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 2.0), high * 10 ** (0.35 * math.log10(max(10.0, high / low))))
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")


def _kind(row: StageRow) -> str:
    """Return the short name of a stage's operator: "mbconv5 x6 se"."""
    parts = row.operator.split(", ")
    name = parts[0].replace("depthwise_separable", "separable").replace("fused_mbconv", "fused")
    return " ".join(
        [name, *(part.replace("expand ", "x") for part in parts[1:] if part.startswith(("expand", "se", "eca")))]
    )


def _value(value: float, figure: Figure) -> float:
    """Return a value as people read it: selection maximises, so an error is negative there."""
    return figure.better(value)


def _in_percent(axes: Any, figure: Figure) -> None:
    if figure.share:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=1))
