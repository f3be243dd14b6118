"""Accuracy against latency in a fit: the trials of candidates, and the quantization steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from effnet.report.figure import BLUE, MUTED, ORANGE, VERMILLION, figure_svg, new_figure, style
from effnet.report.text import ABSENT, percent, quantity

_LABELLED = 12


def ladder_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row of texts for each quantization step, in their order; none if there was no such step."""
    ladder = (report.get("deployed") or {}).get("ladder") or {}
    winner = ladder.get("winner")
    return [
        {
            "name": step["name"],
            "accuracy": percent(step.get("accuracy")),
            "latency": quantity(step.get("latency_ms"), "latency_ms"),
            "speed": f"{step['speed']:.2f} x" if step.get("speed") else ABSENT,
            "size": quantity(step.get("size_mb"), "size_mb"),
            "kind": "kept" if step.get("accepted") else "missed",
            "verdict": "taken" if step["name"] == winner else "accepted" if step.get("accepted") else "refused",
            "reason": step.get("reason") or "",
        }
        for step in ladder.get("steps") or []
    ]


def front_svg(report: Mapping[str, Any]) -> str | None:
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


def _trials(report: Mapping[str, Any]) -> tuple[str, list[Point]]:
    found = [
        (row["latency_ms"], row["trial_accuracy"], _short(row), "taken" if row.get("status") == "taken" else "kept")
        for row in report.get("candidates") or []
        if row.get("trial_accuracy") and row.get("latency_ms")
    ]
    return "Trials: validation accuracy after a short training", found


def _short(row: Mapping[str, Any]) -> str:
    return f"{row.get('name', '')} {row.get('precision', '')}".strip()


def _steps(report: Mapping[str, Any]) -> tuple[str, list[Point]]:
    ladder = (report.get("deployed") or {}).get("ladder") or {}
    found = []
    for step in ladder.get("steps") or []:
        if step.get("accuracy") is not None and step.get("latency_ms"):
            kind = "taken" if step["name"] == ladder.get("winner") else "kept" if step.get("accepted") else "refused"
            found.append((step["latency_ms"], step["accuracy"], step["name"], kind))
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
