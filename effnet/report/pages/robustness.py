"""The page of `effnet evaluate --corruptions` and `--adversarial`: charts of the accuracy, and the table."""

from pathlib import Path

from effnet.measurement.robustness.record import CLEAN, AttackScore, CorruptionScore
from effnet.measurement.robustness.text import (
    NETWORK,
    attack_lines,
    attack_table,
    corruption_lines,
    corruption_table,
)
from effnet.report.pages.frame import paragraphs, section, table, text, write_page
from effnet.report.plots.figure import BLUE, GREEN, MUTED, ORANGE, figure_svg, new_figure, style

_COLOURS = (BLUE, ORANGE, GREEN)
_COLUMNS = 5


def write_corruptions(found: CorruptionScore, path: Path, *, model: str) -> None:
    """Write the page of the scores on corrupted images."""
    shown = corruption_table(found)
    body = section("Summary", paragraphs(corruption_lines(found)))
    body += section("Accuracy by corruption", f'<figure class="plot">{corruptions_svg(found)}</figure>\n')
    body += section("All figures", table(shown.columns, shown.rows, left=shown.left))
    write_page(path, title=f"{model} on corrupted images", body=body)


def write_attacks(found: AttackScore, path: Path, *, model: str) -> None:
    """Write the page of the scores on attacked images."""
    shown = attack_table(found)
    body = section("Summary", paragraphs(attack_lines(found)))
    body += section("Accuracy by size of the attack", f'<figure class="plot">{attacks_svg(found)}</figure>\n')
    body += section("All figures", table(shown.columns, shown.rows, left=shown.left))
    body += f'<p class="quiet">{text(_CAUTION)}</p>\n'
    write_page(path, title=f"{model} under attack", body=body)


_CAUTION = (
    "Stronger attacks exist: this accuracy is an upper bound of that against an attacker who knows the weights, and "
    "says nothing about accidental changes, which corruptions measure."
)


def corruptions_svg(found: CorruptionScore) -> str:
    """Return the accuracy over severity as SVG, a plot for each kind, a line for each export; dotted: its calibration.

    The dotted line is the mean confidence: below the accuracy the model is underconfident, above it overconfident.
    """
    with style():
        rows = -(-len(found.kinds) // _COLUMNS)
        figure = new_figure(2.0 * min(_COLUMNS, len(found.kinds)) + 0.4, 1.9 * rows + 0.5)
        grid = figure.subplots(rows, min(_COLUMNS, len(found.kinds)), sharex=True, sharey=True, squeeze=False).ravel()
        for axes, kind in zip(grid, found.kinds, strict=False):
            for name, colour in zip(found.formats, _COLOURS, strict=False):
                line = [found.of(name, CLEAN, 0), *(found.of(name, kind, each) for each in found.severities)]
                x = [each.severity for each in line]
                y = [100 * each.accuracy for each in line]
                low, high = ([abs(100 * each.interval[i] - 100 * each.accuracy) for each in line] for i in (0, 1))
                axes.errorbar(
                    x, y, yerr=(low, high), color=colour, marker="o", markersize=3, elinewidth=0.7, label=name
                )
                axes.plot(x, [100 * each.confidence for each in line], ":", color=colour, linewidth=1.0)
            axes.set_title(kind.replace("_", " "), loc="left", fontsize=9)
            axes.set(ylim=(0, 102), xlim=(-0.3, 5.3))
            axes.set_xticks([0, *found.severities])
        for axes in grid[len(found.kinds) :]:
            axes.set_visible(False)
        figure.supxlabel("Severity", color=MUTED, fontsize=9)
        figure.supylabel("Accuracy (line) and mean confidence (dotted), %", color=MUTED, fontsize=9)
        if len(found.formats) > 1:
            figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(found.formats))
    return figure_svg(figure, name="corruptions")


def attacks_svg(found: AttackScore) -> str:
    """Return the accuracy over eps as SVG: solid PGD, dashed FGSM, a colour for the network and each export."""
    with style():
        figure = new_figure(5.2, 3.4)
        axes = figure.add_subplot()
        for name, colour in zip((NETWORK, *found.formats), _COLOURS, strict=False):
            for method, dash in (("pgd", "-"), ("fgsm", "--")):
                sizes = sorted({row.eps for row in found.rows if row.method == method})
                line = [found.of(name, "", 0), *(found.of(name, method, size) for size in sizes)]
                y = [100 * each.accuracy for each in line]
                axes.plot(
                    [0, *sizes], y, dash, color=colour, marker="o", markersize=3, label=f"{name}, {method.upper()}"
                )
        axes.set(ylim=(-2, 102), xlabel="Largest change of a pixel, in levels of 255", ylabel="Accuracy, %")
        axes.legend(fontsize=8)
    return figure_svg(figure, name="attacks")
