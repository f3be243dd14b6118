"""The plots of several outputs, drawn by matplotlib: each beside its baseline, and numbers over their targets."""

import math

from effnet.measurement.several.outputs import OutputScore
from effnet.report.model import Report
from effnet.report.plots.figure import BLUE, MUTED, ORANGE, figure_svg, new_figure, style
from effnet.report.text import printable

_SHOWN = 40


def outputs_svg(report: Report) -> str | None:
    """Return the score of each output as SVG: a dot with its 95 % interval, and a ring for the baseline.

    None unless two of them are scored.
    """
    outputs = [output for output in report.test.outputs if output.known and math.isfinite(output.score)][:_SHOWN]
    if len(outputs) < 2:
        return None
    with style():
        from matplotlib.ticker import PercentFormatter

        figure = new_figure(6.6, 1.0 + 0.32 * len(outputs))
        axes = figure.add_subplot()
        for place, output in enumerate(outputs):
            low, high, base = _on_scale(output)
            axes.plot([base, output.score], [place, place], color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
            axes.plot(sorted((low, high)), [place, place], color=BLUE, linewidth=2.6, alpha=0.5, zorder=2)
            axes.plot([output.score], [place], "o", color=BLUE, markersize=6, zorder=3)
            axes.plot([base], [place], "o", color=ORANGE, markerfacecolor="none", markersize=6, zorder=3)
        axes.plot([], [], "o", color=BLUE, label="model")
        axes.plot([], [], "o", color=ORANGE, markerfacecolor="none", label="baseline")
        names = [printable(output.name, columns=28) for output in outputs]
        axes.set_yticks(range(len(outputs)), names, parse_math=False)
        axes.set_ylim(len(outputs) - 0.4, -0.6)
        axes.set_xlim(min(-0.02, *(_on_scale(output)[0] - 0.05 for output in outputs)), 1.04)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_xlabel("Accuracy, mean average precision, or 1 - MAE / MAE of the median")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0)
    return figure_svg(figure, name="outputs", tight=True)


def _on_scale(output: OutputScore) -> tuple[float, float, float]:
    """Return the ends of the interval of an output's score, and that of its baseline."""
    if output.number is None:
        return *output.interval, output.baseline
    low, high = (gain / output.baseline if output.baseline else 0.0 for gain in output.number.gain)
    return max(-1.0, low), max(-1.0, high), 0.0


def number_svg(output: OutputScore, *, number: int) -> str:
    """Return the answers over the targets of a number as SVG; `number` makes its ids its own."""
    assert output.number is not None
    true, answered = zip(*output.number.points, strict=True)
    low, high = min(*true, *answered), max(*true, *answered)
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    with style():
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(4.4, 3.5)
        axes = figure.add_subplot()
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
        axes.axhline(output.number.median, color=ORANGE, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
        axes.scatter(true, answered, s=14, color=BLUE, alpha=0.5, linewidths=0, zorder=3)
        axes.set_title(printable(output.name, columns=40), loc="left", fontsize=10, fontweight="bold", parse_math=False)
        axes.set(
            xlabel="Target", ylabel="Answer", xlim=(low - margin, high + margin), ylim=(low - margin, high + margin)
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5))
        axes.ticklabel_format(useOffset=False)
    return figure_svg(figure, name=f"number{number}")
