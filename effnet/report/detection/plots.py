"""The plots of a detector's report: precision over recall, and the objects by size; drawn by matplotlib."""

from effnet.measurement.detection.record import DetectionScore
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
from effnet.report.text import printable

_LINES = (
    (ORANGE, "-"),
    (SKY, "-"),
    (GREEN, "-"),
    (PURPLE, "-"),
    (ORANGE, ":"),
    (SKY, ":"),
    (GREEN, ":"),
    (PURPLE, ":"),
)


def precision_recall_svg(score: DetectionScore) -> str | None:
    """Return precision over recall as SVG, of all classes and of each if they are few; None without a detection."""
    if not score.curve:
        return None
    with style():
        from matplotlib.ticker import PercentFormatter

        figure = new_figure(4.6, 3.6)
        axes = figure.add_subplot()
        classes = [each for each in score.per_class if each.curve]
        if 1 < len(classes) <= len(_LINES):
            for each, (colour, dash) in zip(classes, _LINES, strict=False):
                recalls, precisions = zip(*each.curve, strict=True)
                name = printable(each.name, columns=18)
                axes.plot(recalls, precisions, dash, color=colour, linewidth=1.1, label=name, zorder=2)
        recall, precision = zip(*((point.recall, point.precision) for point in score.curve), strict=True)
        axes.plot(recall, precision, color=BLUE, label="all classes", zorder=3)
        if point := score.operating:
            label = f"score {score.threshold:.2f}"
            axes.plot([point.recall], [point.precision], "o", color=VERMILLION, markersize=6, label=label, zorder=4)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="Recall", ylabel="Precision")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        for text in axes.legend(loc="lower left", fontsize=7.5).get_texts():
            text.set_parse_math(False)
    return figure_svg(figure, name="precision_recall", tight=True)


def sizes_svg(score: DetectionScore) -> str | None:
    """Return the objects by size as SVG, those found and those missed; None without an object.

    Sizes are those in the network's input; a line marks its finest cell.
    """
    bins = score.sizes.bins
    if not any(each.objects for each in bins):
        return None
    with style():
        figure = new_figure(4.6, 3.6)
        axes = figure.add_subplot()
        places = range(len(bins))
        found = [each.found for each in bins]
        axes.bar(places, found, color=BLUE, width=0.82, label="found")
        axes.bar(
            places, [b.objects - b.found for b in bins], bottom=found, color=VERMILLION, width=0.82, label="missed"
        )
        for place, each in enumerate(bins):
            if each.objects:
                text = f"{100 * each.found / each.objects:.0f} %"
                axes.annotate(
                    text,
                    (place, each.objects),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                    color=INK,
                )
        edge = sum(each.high is not None and each.high <= score.sizes.stride for each in bins) - 0.5
        axes.axvline(edge, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.set_xticks(places, [f"{b.low}–{b.high}" if b.high else f"{b.low}+" for b in bins], fontsize=7.5)
        side = f"{score.sizes.width} x {score.sizes.height}"
        axes.set(xlabel=f"Size in an input of {side} (pixels)", ylabel="Objects")
        axes.margins(y=0.12)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="best", fontsize=8)
    return figure_svg(figure, name="sizes", tight=True)
