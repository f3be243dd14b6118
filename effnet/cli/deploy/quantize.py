"""quantize: quantize a bundle within an accuracy limit."""

from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import TerminalListener, print_table, print_text
from effnet.cli.options import Bundle
from effnet.jobs.quantize.config import QuantizeConfig
from effnet.system.text import both

Data = Annotated[str, typer.Argument(metavar="DATA", help="The data that the bundle was trained on, as for fit.")]


@takes_options(QuantizeConfig, bundle=Bundle, data=Data)
def quantize(values: dict[str, Any]) -> None:
    """Quantize a bundle to int8 step by step; keep the fastest step that is accurate enough in its runtime.

    The accuracy of a detector is its AP, that of a segmenter its mIoU; they have no steps that train.
    """
    from effnet import quantize as quantize_bundle
    from effnet.jobs.quantize.api import PLOT
    from effnet.report.facts import SearchFacts
    from effnet.report.plots.sensitivity import sensitivity_sentence
    from effnet.tasks.registry import find_task

    with TerminalListener() as listener:
        result = quantize_bundle(**values, listener=listener)
    found = result.record
    print_steps(found.steps)
    print_text(found.sentence)
    if found.tested:
        tested = found.tested
        if lost := tested.get("lost"):
            figure = find_task(found.config.task).figure
            now, before = ("-" if tested[name] is None else figure.shown(tested[name]) for name in ("winner", "fp32"))
            print_text(f"test {figure.title} {now}; fp32 {before}, on {lost['images']} images")
        else:
            now, before = (both(tested[name], tested.get(f"{name}_balanced")) for name in ("winner", "fp32"))
            print_text(f"test accuracy {now}; fp32 {before}")
    shown = f": {result.folder / PLOT} shows them" if found.sensitivity else ""
    print_text(sensitivity_sentence(SearchFacts.from_dict(found.to_dict())) + shown)
    print_text(f"{result.folder} now predicts with {found.format}")


def print_steps(steps: Any) -> None:
    """Print the table of the quantization steps."""
    figures = {step.lost.figure for step in steps if step.lost}
    rows = [
        (
            step.name,
            _figure(step),
            "-" if step.compared is None else _changed(step),
            "-" if step.latency_ms is None else f"{step.latency_ms:.3g}",
            "-" if step.speed is None else f"{step.speed:.2f}",
            "-" if step.size_mb is None else f"{step.size_mb:.3g}",
            "-" if step.memory_mb is None else f"{step.memory_mb:.3g}",
            "accepted" if step.accepted else "refused",
            step.reason,
        )
        for step in steps
    ]
    what = [(figure.title, "drop (pp)") for figure in figures] or [("accuracy", "images")]
    columns = ("step", *what[0], "ms", "speed", "MB", "memory MB", "verdict", "why")
    print_table(columns, rows, left=("step", "verdict", "why"))


def _figure(step: Any) -> str:
    if step.lost:
        return step.lost.figure.shown(step.lost.after)
    return step.shown or "-"


def _changed(step: Any) -> str:
    """Return how many images became wrong and right, or how much of the figure is lost."""
    if step.lost:
        return f"{100 * step.lost.drop:+.2f}"
    return f"{-step.paired.lost:+d} {step.paired.gained:+d}"
