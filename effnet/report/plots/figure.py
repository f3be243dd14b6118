"""The common style of plots, and their SVG: an element inside a page, or a file."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.errors import MissingExtraError
from effnet.system.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#22303c", "#667380", "#dfe4e9"
# Okabe and Ito's palette, safe for colour-blind readers. Vermillion is reserved for the most important marks.
# Source: https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
)
# The page redefines these for dark mode; elsewhere the fallback applies.
_PAGE_COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", BLUE: "blue"}


@contextmanager
def style(salt: str = "effnet") -> Iterator[None]:
    """Set the style while a figure is made or saved; `salt` goes into the ids of its SVG.

    It starts from matplotlib's defaults, not from the user's matplotlibrc, so that a report looks the same
    anywhere. Raises MissingExtraError without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.style import context
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": MUTED,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    }
    # A class name may be in any script; the browser has the glyphs that matplotlib's own font lacks.
    with context("default"), matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, its size in inches, without pyplot or a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def figure_svg(figure: "Figure", *, name: str, tight: bool = False, pad_inches: float = 0.05) -> str:
    """Return a figure as an <svg> element for a page; the same figure gives the same bytes.

    `name` makes its ids differ from those of other figures. With `tight`, which draws the figure twice, it grows to
    hold what lies outside of it, and `pad_inches` around that. Its colours follow the page's --ink, --muted,
    --grid and --blue if the page sets them.
    """
    with style(salt=name):
        buffer = StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight" if tight else None,
            pad_inches=pad_inches,
            metadata={"Date": None},
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # A style element would reach the whole page, and figure_1, axes_1 and so on would repeat in each image.
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[A-Za-z0-9.]+_\d+">', "<g>", svg)
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1).strip()


def save_svg(figure: "Figure", path: Path) -> None:
    """Write a figure into an .svg file, on white, whole or not at all; the same figure gives the same bytes."""
    with written_whole(path) as beside, style(salt=path.stem):
        figure.savefig(beside, format="svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})
