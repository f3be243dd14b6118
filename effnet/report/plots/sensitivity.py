"""Layers' sensitivity to quantization, from the record of a search: a plot, or a sentence if there is none."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.report.facts import SearchFacts
from effnet.report.plots.figure import BLUE, INK, MUTED, VERMILLION, figure_svg, new_figure, save_svg, style
from effnet.runtimes.registry import find_format

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 24
_NAMED = 3
# Below it the axis is in thousandths.
_SMALL = 0.1


def sensitivity_svg(ladder: SearchFacts | None) -> str | None:
    """Return the plot of save_sensitivity as SVG for an HTML page; None if no layers were ranked."""
    figure = None if ladder is None else _figure(ladder)
    return None if figure is None else figure_svg(figure, name="sensitivity")


def save_sensitivity(ladder: SearchFacts, path: Path) -> bool:
    """Draw the most sensitive layers of a search's record as bars into an .svg file, float layers highlighted.

    Returns False, and removes a file at `path`, if no layers were ranked.
    Raises MissingExtraError without matplotlib.
    """
    figure = _figure(ladder)
    if figure is None:
        path.unlink(missing_ok=True)
        return False
    save_svg(figure, path)
    return True


def sensitivity_sentence(ladder: SearchFacts | None) -> str:
    """Return the most sensitive layers and the number left float, or why layers were not ranked; no full stop.

    Empty without a search.
    """
    if ladder is None:
        return ""
    rows, kept = ladder.sensitivity, ladder.float_layers
    rounded = [step for step in ladder.steps if find_format(step.format).precision == "int8"]
    if rows:
        worst = ", ".join(row.layer for row in rows[:_NAMED])
        stay = "none stays float" if not kept else f"{len(kept)} {'stays' if len(kept) == 1 else 'stay'} float"
        return f"Of {len(rows)} layers, the most sensitive to quantization are {worst}; {stay} in the winner"
    if not rounded:
        return "Layers were not ranked by sensitivity to quantization: int8 was not tried"
    if any(step.kept for step in rounded):
        return "Layers were not ranked by sensitivity to quantization: int8 meets the accuracy criterion without it"
    return "Layers were not ranked by sensitivity to quantization: the time was over"


def _figure(ladder: SearchFacts) -> "Figure | None":
    rows = ladder.sensitivity
    # A layer that breaks the network may have no finite number, which a bar cannot show.
    shown = [(row.layer, max(row.harm, 0.0)) for row in rows if row.harm is not None][:_SHOWN]
    if not shown:
        return None
    kept = set(ladder.float_layers)
    with style():
        figure = new_figure(6.6, 1.2 + 0.19 * len(shown))
        axes = figure.add_subplot()
        small = shown[0][1] < _SMALL
        places, harms = range(len(shown)), [harm * (1000 if small else 1) for _, harm in shown]
        colours = [VERMILLION if layer in kept else BLUE for layer, _ in shown]
        axes.barh(places, harms, color=colours, height=0.7)
        for place, harm in zip(places, harms, strict=True):
            axes.annotate(
                f"{harm:.2g}", (harm, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7,
                color=MUTED,
            )  # fmt: skip
        axes.set_yticks(places, [layer for layer, _ in shown], fontsize=8)
        for label, (layer, _) in zip(axes.get_yticklabels(), shown, strict=True):
            label.set_color(VERMILLION if layer in kept else INK)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.08 * max(harms) or 1.0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        most = f"The {len(shown)} most sensitive of {len(rows)} layers" if len(shown) < len(rows) else "All layers"
        axes.set_title(f"{most}, each quantized alone", loc="left", fontsize=9, fontweight="bold")
        axes.set_xlabel(f"Divergence of predictions from fp32 (KL, {'thousandths of a nat' if small else 'nats'})")
        if kept:
            _add_legend(axes)
    return figure


def _add_legend(axes: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=VERMILLION, label="stays float"), Patch(color=BLUE, label="int8")]
    axes.legend(handles=handles, loc="lower right", fontsize=8)
