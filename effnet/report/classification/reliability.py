"""Calibration and confidence in a report: reliability diagram, risk over coverage, and results of thresholds."""

from typing import Any

from effnet.measurement.classification.score import Answered
from effnet.report.model import Report
from effnet.report.plots.figure import BLUE, MUTED, ORANGE, VERMILLION, figure_svg, new_figure, style
from effnet.report.text import probability

_COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5)


def mean_confidence(report: Report) -> float:
    """Return the mean confidence of the model on the test images."""
    bins = report.test.sureness.reliability
    return sum(b.images * b.confidence for b in bins) / sum(b.images for b in bins)


def threshold_rows(report: Report) -> list[Answered]:
    """Return threshold, coverage and error on the test images for a few thresholds, from 0 on."""
    rows: dict[float, Answered] = {}
    for wanted in _COVERAGES:
        fitting = [point for point in report.test.risk_coverage if point[1] >= wanted - 1e-9]
        if fitting:
            threshold, coverage, error = min(fitting, key=lambda point: point[1])
            everything = coverage == 1
            rows[coverage] = Answered(threshold=0.0 if everything else threshold, coverage=coverage, error=error)
    return list(rows.values())


def reliability_svg(report: Report) -> str:
    """Return the reliability diagram, accuracy over confidence before and after temperature scaling, as SVG.

    One marker for each bin, its area proportional to its number of images; a calibrated model is on the diagonal.
    """
    after, before = report.test.sureness.reliability, report.test.uncalibrated.reliability
    most = max(b.images for b in (*after, *before))
    with style():
        figure = new_figure(4.4, 3.5)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
        pairs = [("calibrated", after, BLUE, BLUE)]
        if before != after:
            pairs.insert(0, ("before", before, ORANGE, "none"))
        for label, bins, colour, face in pairs:
            sizes = [8 + 200 * b.images / most for b in bins]
            x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
            axes.scatter(x, y, s=sizes, facecolors=face, edgecolors=colour, linewidths=1.2, alpha=0.8, zorder=3)
            axes.plot([], [], "o", color=colour, markerfacecolor=face, label=label)
        axes.set_title("Reliability", loc="left", fontsize=10, fontweight="bold")
        axes.set(xlabel="Confidence", ylabel="Accuracy", xlim=(-0.02, 1.04), ylim=(-0.03, 1.07))
        _percent_axes(axes)
        if len(pairs) > 1:
            # Above the axes: inside, its marks would be read as bins.
            axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, borderaxespad=0)
    return figure_svg(figure, name="reliability")


def risk_coverage_svg(report: Report) -> str:
    """Return the error over the coverage as SVG, with the chosen threshold."""
    curve, answered = report.test.risk_coverage, report.test.answered
    error = answered.error if answered else None
    with style():
        figure = new_figure(4.4, 3.5)
        axes = figure.add_subplot()
        coverage, risk = [point[1] for point in curve], [point[2] for point in curve]
        axes.plot(coverage, risk, color=BLUE, marker="o" if len(curve) == 1 else None, zorder=2)
        axes.plot(coverage[-1:], risk[-1:], "o", color=BLUE, markersize=6, zorder=3)
        if answered and error is not None:
            place = (answered.coverage, error)
            axes.scatter(*place, s=110, facecolors="none", edgecolors=VERMILLION, linewidths=2.2, zorder=5)
            text = f"threshold {probability(answered.threshold)}"
            axes.annotate(
                text, place, xytext=(-8, 8), textcoords="offset points", ha="right", va="bottom", color=VERMILLION
            )
        axes.set_title("Error over coverage", loc="left", fontsize=10, fontweight="bold")
        top = max(0.01, *risk, error or 0.0)
        axes.set(xlabel="Share of images answered", ylabel="Share of answers that are wrong", xlim=(-0.02, 1.04))
        axes.set_ylim(-0.03 * top, 1.2 * top)
        _percent_axes(axes)
    return figure_svg(figure, name="risk")


def _percent_axes(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
