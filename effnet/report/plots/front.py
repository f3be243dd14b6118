"""Accuracy against latency in a fit: the trials of candidates, and the quantization steps."""

import math
from collections.abc import Sequence
from typing import Any

from effnet.report.model import Report
from effnet.report.plots.figure import BLUE, MUTED, ORANGE, VERMILLION, figure_svg, new_figure, style
from effnet.report.text import ABSENT, percent, quantity

_LABELLED = 12


def ladder_rows(report: Report) -> list[dict[str, Any]]:
    """Return a row of texts for each quantization step, in their order; none if there was no such step."""
    ladder = report.deployed.ladder
    winner = ladder.winner if ladder else ""
    return [
        {
            "name": step.name,
            "accuracy": percent(step.accuracy),
            "latency": quantity(step.latency_ms, "latency_ms"),
            "speed": f"{step.speed:.2f} x" if step.speed else ABSENT,
            "size": quantity(step.size_mb, "size_mb"),
            "kind": "kept" if step.accepted else "missed",
            "verdict": "taken" if step.name == winner else "accepted" if step.accepted else "refused",
            "reason": step.reason,
        }
        for step in (ladder.steps if ladder else ())
    ]


def front_svg(report: Report) -> str | None:
    """Return accuracy over latency as SVG: trials on the left, quantization steps on the right; None without either."""
    panels = [panel for panel in (_trials(report), _steps(report)) if panel[1]]
    if not panels:
        return None
    with style():
        figure = new_figure(max(6.6, 4.4 * len(panels)), 3.2)
        for number, (title, points) in enumerate(panels, 1):
            _draw(figure.add_subplot(1, len(panels), number), title, points)
    return figure_svg(figure, name="front")


Point = tuple[float, float, str, str]
"""Latency in ms, accuracy, a label, and the outcome: taken, kept or refused."""


def _trials(report: Report) -> tuple[str, list[Point]]:
    found = []
    for row in report.candidates:
        if row.trial_accuracy and row.latency_ms:
            kind = "taken" if row.status == "taken" else "kept"
            found.append((row.latency_ms, row.trial_accuracy, row.title, kind))
    return "Trials: validation accuracy after a short training", found


def _steps(report: Report) -> tuple[str, list[Point]]:
    ladder, found = report.deployed.ladder, []
    winner = ladder.winner if ladder else ""
    for step in ladder.steps if ladder else ():
        if step.accuracy is not None and step.latency_ms:
            kind = "taken" if step.name == winner else "kept" if step.accepted else "refused"
            found.append((step.latency_ms, step.accuracy, step.name, kind))
    return "Quantization steps: validation accuracy in the runtime", found


def _draw(axes: Any, title: str, points: Sequence[Point]) -> None:
    from matplotlib.ticker import PercentFormatter

    looks = {"taken": (VERMILLION, VERMILLION), "kept": (BLUE, BLUE), "refused": ("none", ORANGE)}
    for latency, accuracy, _, kind in points:
        face, edge = looks[kind]
        axes.scatter([latency], [accuracy], s=34, facecolors=face, edgecolors=edge, linewidths=1.2, zorder=3)
    front = pareto([(x, y) for x, y, _, kind in points if kind != "refused"])
    if front:
        axes.plot(*zip(*front, strict=True), color=MUTED, linewidth=1.0, drawstyle="steps-post", zorder=2)
    for latency, accuracy, label, kind in points if len(points) <= _LABELLED else ():
        axes.annotate(
            label, (latency, accuracy), xytext=(5, 3), textcoords="offset points", fontsize=7,
            color=VERMILLION if kind == "taken" else MUTED,
        )  # fmt: skip
    axes.margins(x=0.25, y=0.15)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("Latency of one image (ms)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=1))


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front: the points that no other beats in both latency and accuracy, the fastest first."""
    front, best = [], -math.inf
    for latency, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            front.append((latency, accuracy))
            best = accuracy
    return front
