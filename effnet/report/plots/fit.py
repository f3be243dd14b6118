"""The plots of a report of any task: candidates and learning curves, drawn by matplotlib."""

from collections import Counter
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from effnet.report.facts import CandidateRow, EpochRow
from effnet.report.model import Report
from effnet.report.plots.figure import (
    BLUE,
    GREEN,
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
from effnet.report.provenance import weights_name
from effnet.report.text import printable, short
from effnet.system.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FAMILY_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (SKY, "v"), (MUTED, "P"))
_DASHES = (0, (4, 1.5))
# The share of a figure's width that its legend may take, beside its margins.
_LEGEND_SHARE = 0.95


def save_candidates(report: Report, path: Path) -> None:
    """Write the candidates plot to a file of its own; the suffix of its path, .svg or .png, is the format."""
    figure = candidates_figure(report)
    # None omits a field, so that the same report always gives the same bytes.
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with written_whole(path) as beside, style():
        figure.savefig(beside, format=path.suffix[1:], dpi=200, metadata=metadata, facecolor="white", transparent=False)


def candidates_svg(report: Report) -> str | None:
    """Return the candidates plot as SVG, or None if no candidate can be drawn."""
    if not _drawn(report, _height_key(report)):
        return None
    return figure_svg(candidates_figure(report), name="candidates", tight=True)


def candidates_figure(report: Report) -> "Figure":
    """Draw measured latency over MACs, one marker for each candidate, with the budget's lines and the taken one.

    If no latency was measured at all, the height is the number of parameters.
    """
    key = _height_key(report)
    drawn = _drawn(report, key)
    budget = report.budget
    with style():
        figure = new_figure(6.6, 4.0)
        axes = figure.add_subplot()
        families = list(dict.fromkeys(_kind(candidate) for candidate in drawn))
        for family, (colour, marker) in zip(families, _looks(len(families)), strict=True):
            for fits in (False, True):
                some = [c for c in drawn if _kind(c) == family and _fits(c) == fits]
                axes.scatter(
                    [c.macs for c in some],
                    [getattr(c, key) for c in some],
                    s=26,
                    marker=marker,
                    facecolors=colour if fits else "none",
                    edgecolors=colour,
                    linewidths=1.0,
                    alpha=0.95 if fits else 0.75,
                    zorder=3 if fits else 2,
                )
        axis: tuple[tuple[Literal["x", "y"], str], ...] = (("x", "macs"), ("y", key))
        for which, name in axis:
            _scale(axes, which, [v for v in (getattr(row, name) for row in (budget, *drawn)) if v])
        axes.set_xlabel("Multiply-accumulates (MACs) per image")
        axes.set_ylabel("Measured latency (ms)" if key == "latency_ms" else "Parameters")
        _draw_budget(axes, getattr(budget, key), budget.macs, unit=" ms" if key == "latency_ms" else "")
        _mark_taken(axes, drawn, key)
        _draw_legend(axes, families)
    return figure


def candidates_caption(report: Report) -> str:
    """Return one line on the number of candidates by status, and on those that the plot cannot show."""
    candidates = report.candidates
    counts: Counter[str] = Counter(candidate.status for candidate in candidates)
    words = {
        "taken": "taken",
        "fits": "fit as well" if counts["taken"] else "fit",
        "rejected": "rejected",
        "failed": "failed",
        "unmeasured": "not measured",
    }
    parts = [f"{counts[status]} {word}" for status, word in words.items() if counts[status]]
    plural = "s" if len(candidates) > 1 else ""
    caption = f"{len(candidates)} candidate{plural}: {', '.join(parts)}." if parts else f"{len(candidates)} candidates."
    if len({candidate.weights for candidate in candidates}) == 1 and (name := weights_name(report)):
        caption += f" All start from the pretrained weights {name}."
    key = _height_key(report)
    absent = len(candidates) - len(_drawn(report, key))
    what = "measured latency" if key == "latency_ms" else "known size"
    return caption + (f" {absent} without a {what} {'are' if absent > 1 else 'is'} not drawn." if absent else "")


def learning_curve_svg(report: Report, quantity: str, *, title: str = "", share: bool = False) -> str | None:
    """Return the loss or a validation figure over the epochs as SVG, or None without any epoch.

    `quantity` is "loss" or the key of the task's figure, in percent if it is a `share`; `title` is by default made of
    it.
    """
    training = report.training
    epochs, best = training.epochs, training.best_epoch
    if not epochs:
        return None
    steps = [epoch.epoch for epoch in epochs]
    with style():
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure = new_figure(4.4, 2.9)
        axes = figure.add_subplot()
        for label, values, colour, dash in _curves(epochs, quantity):
            if not np.isfinite(values).any():
                continue
            # A single epoch has no line, so it gets a marker.
            marker = "o" if len(epochs) == 1 else None
            axes.plot(steps, values, color=colour, linestyle=dash, marker=marker, label=label)
            if label == "validation" and best in steps:
                axes.axvline(best, color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
                axes.plot([best], [values[steps.index(best)]], "o", color=BLUE, markersize=6, zorder=4)
        if training.head:
            found = training.head
            alone = {"loss": found.val_loss, "balanced_accuracy": found.val_balanced_figure}.get(
                quantity, found.val_figure
            )
            axes.axhline(alone, color=GREEN, linewidth=1.2, linestyle="-.", label="the head alone", zorder=1)
        title = title or quantity.capitalize().replace("_", " ")
        axes.set_title(f"{title[0].upper()}{title[1:]}", loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel("Epoch" + (f" (best: {best})" if best in steps else ""))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if len(epochs) == 1:
            axes.set_xticks(steps)
            axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        if share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.legend(loc="best")
    return figure_svg(figure, name=quantity)


def _curves(epochs: Sequence[EpochRow], quantity: str) -> list[tuple[str, list[float], str, Any]]:
    """Return the label, values, colour and dashes of each curve; only the loss is known in training as well."""
    if quantity != "loss":
        return [("validation", [epoch.figures.get(f"val_{quantity}", nan) for epoch in epochs], BLUE, "solid")]
    return [
        ("training", [epoch.loss for epoch in epochs], ORANGE, _DASHES),
        ("validation", [epoch.val_loss for epoch in epochs], BLUE, "solid"),
    ]


def _kind(candidate: CandidateRow) -> str:
    """Return the legend entry of a candidate's marker: its family, and its precision unless it is fp32."""
    return candidate.family + ("" if candidate.precision == "fp32" else f" {candidate.precision}")


def _height_key(report: Report) -> Literal["latency_ms", "params"]:
    return "latency_ms" if _drawn(report, "latency_ms") else "params"


def _drawn(report: Report, key: str) -> list[CandidateRow]:
    """Return the candidates whose figure is known."""
    return [c for c in report.candidates if getattr(c, key)]


def _fits(candidate: CandidateRow) -> bool:
    return candidate.status in ("taken", "fits")


def _looks(count: int) -> list[tuple[str, str]]:
    """Return a colour and a marker for each family; after six the pairs shift, so that none repeats before 36."""
    colours = [colour for colour, _ in _FAMILY_LOOKS]
    markers = [marker for _, marker in _FAMILY_LOOKS]
    return [(colours[i % 6], markers[(i + i // 6) % 6]) for i in range(count)]


def _scale(axes: "Axes", which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make an axis logarithmic, with ticks at 1, 2 and 5, if its values span more than a factor of five.

    Any other axis starts at zero, so that small differences look small.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    if values and max(values) > 5 * min(values) > 0:
        axes.set(**{f"{which}scale": "log"})
        crowded = max(values) > 1000 * min(values)
        axis.set_major_locator(LogLocator(subs=(1,) if crowded else (1, 2, 5)))
        axis.set_minor_locator(NullLocator())
    elif values:
        axes.set(**{f"{which}lim": (0, 1.1 * max(values))})
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _draw_budget(axes: "Axes", height: float | None, width: float | None, *, unit: str) -> None:
    look = {"color": INK, "linewidth": 1.1, "linestyle": (0, (5, 3)), "zorder": 2}
    if height is not None:
        axes.axhline(height, **look)
        # Written at the right edge, above the line: small networks, the crowded ones, are at the left.
        place = {"xy": (1, height), "xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(f"budget {short(height)}{unit}", xytext=(-2, 3), ha="right", va="bottom", fontsize=8.5, **place)
    if width is not None:
        axes.axvline(width, **look)
        place = {"xy": (width, 0), "xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(
            f"budget {short(width)}",
            xytext=(-3, 4),
            ha="right",
            va="bottom",
            rotation=90,
            fontsize=8.5,
            **place,
        )


def _mark_taken(axes: "Axes", drawn: Sequence[CandidateRow], key: str) -> None:
    for candidate in drawn:
        if candidate.status != "taken":
            continue
        place = (candidate.macs, getattr(candidate, key))
        axes.scatter(*place, s=150, facecolors="none", edgecolors=VERMILLION, linewidths=2.2, zorder=5)
        # Named above the axes: inside, a label would hide other candidates or cross a budget's line.
        name = printable(candidate.title, columns=60)
        axes.set_title(
            f"taken: {name}", loc="left", color=VERMILLION, fontsize=9.5, fontweight="bold", parse_math=False
        )


def _draw_legend(axes: "Axes", families: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            color=colour,
            markersize=5.5,
            label=printable(family, columns=40),
        )
        for family, (colour, marker) in zip(families, _looks(len(families)), strict=True)
    ]
    mark = {"linestyle": "none", "marker": "o", "color": MUTED, "markersize": 5.5}
    handles.append(Line2D([], [], label="fits", **mark))
    handles.append(Line2D([], [], label="rejected", markerfacecolor="none", **mark))
    figure = axes.figure
    for columns in range(6, 0, -1):  # as many as fit: a legend that is wider than its figure would be cut
        legend = figure.legend(handles=handles, loc="outside upper left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= _LEGEND_SHARE * figure.bbox.width:
            break
        legend.remove()
    for text in legend.get_texts():
        text.set_parse_math(False)
