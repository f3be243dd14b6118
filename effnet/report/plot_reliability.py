"""Calibration and confidence in a report: reliability diagram, risk over coverage, and results of thresholds."""

from collections.abc import Mapping
from typing import Any

from effnet.report.figure import BLUE, MUTED, ORANGE, VERMILLION, figure_svg, new_figure, style
from effnet.report.text import probability

_COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5)


def mean_confidence(report: Mapping[str, Any]) -> float | None:
    """Return the mean confidence of the model on the test images, or None if it is absent."""
    bins = _bins(report, "sureness")
    images = sum(b["images"] for b in bins)
    return sum(b["images"] * b["confidence"] for b in bins) / images if images else None


def threshold_rows(report: Mapping[str, Any]) -> list[dict[str, float]]:
    """Return threshold, coverage and error on the test images for a few thresholds, from 0 on."""
    curve = _test(report).get("risk_coverage") or []
    rows: dict[float, dict[str, float]] = {}
    for wanted in _COVERAGES:
        fitting = [point for point in curve if point[1] >= wanted - 1e-9]
        if fitting:
            threshold, coverage, error = min(fitting, key=lambda point: point[1])
            everything = coverage == 1
            rows[coverage] = {"threshold": 0.0 if everything else threshold, "coverage": coverage, "error": error}
    return list(rows.values())


def reliability_svg(report: Mapping[str, Any]) -> str | None:
    """Return the reliability diagram, accuracy over confidence before and after temperature scaling, or None.

    One marker for each bin, its area proportional to its number of images; a calibrated model is on the diagonal.
    """
    after, before = _bins(report, "sureness"), _bins(report, "uncalibrated")
    if not after:
        return None
    most = max(b["images"] for b in (*after, *before))
    with style():
        figure = new_figure(4.4, 3.5)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
        pairs = [("calibrated", after, BLUE, BLUE)]
        if before and before != after:
            pairs.insert(0, ("before", before, ORANGE, "none"))
        for label, bins, colour, face in pairs:
            x, y = ([b[key] for b in bins] for key in ("confidence", "accuracy"))
            sizes = [8 + 200 * b["images"] / most for b in bins]
            axes.scatter(x, y, s=sizes, facecolors=face, edgecolors=colour, linewidths=1.2, alpha=0.8, zorder=3)
            axes.plot([], [], "o", color=colour, markerfacecolor=face, label=label)
        axes.set_title("Reliability", loc="left", fontsize=10, fontweight="bold")
        axes.set(xlabel="Confidence", ylabel="Accuracy", xlim=(-0.02, 1.04), ylim=(-0.03, 1.07))
        _percent_axes(axes)
        if len(pairs) > 1:
            # Above the axes: inside, its marks would be read as bins.
            axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, borderaxespad=0)
    return figure_svg(figure, name="reliability")


def risk_coverage_svg(report: Mapping[str, Any]) -> str | None:
    """Return the error over the coverage as a plot, with the chosen threshold, or None."""
    curve = _test(report).get("risk_coverage") or []
    if not curve:
        return None
    with style():
        figure = new_figure(4.4, 3.5)
        axes = figure.add_subplot()
        coverage, risk = [point[1] for point in curve], [point[2] for point in curve]
        axes.plot(coverage, risk, color=BLUE, marker="o" if len(curve) == 1 else None, zorder=2)
        axes.plot(coverage[-1:], risk[-1:], "o", color=BLUE, markersize=6, zorder=3)
        answered = _test(report).get("answered") or {}
        if answered.get("error") is not None:
            place = (answered["coverage"], answered["error"])
            axes.scatter(*place, s=110, facecolors="none", edgecolors=VERMILLION, linewidths=2.2, zorder=5)
            text = f"threshold {probability(answered['threshold'])}"
            axes.annotate(
                text, place, xytext=(-8, 8), textcoords="offset points", ha="right", va="bottom", color=VERMILLION
            )
        axes.set_title("Error over coverage", loc="left", fontsize=10, fontweight="bold")
        top = max(0.01, *risk, answered.get("error") or 0.0)
        axes.set(xlabel="Share of images answered", ylabel="Share of answers that are wrong", xlim=(-0.02, 1.04))
        axes.set_ylim(-0.03 * top, 1.2 * top)
        _percent_axes(axes)
    return figure_svg(figure, name="risk")


def _percent_axes(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _bins(report: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return (_test(report).get(key) or {}).get("reliability") or []


def _test(report: Mapping[str, Any]) -> Mapping[str, Any]:
    return report.get("test") or {}
