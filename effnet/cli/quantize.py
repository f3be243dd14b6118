"""quantize: quantize a bundle within an accuracy limit."""

from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import TerminalListener, print_table, print_text
from effnet.cli.options import Bundle
from effnet.jobs.quantize_config import QuantizeConfig
from effnet.system.text import both

Data = Annotated[str, typer.Argument(metavar="DATA", help="The data that the bundle was trained on, as for fit.")]


@takes_options(QuantizeConfig, bundle=Bundle, data=Data)
def quantize(values: dict[str, Any]) -> None:
    """Quantize a bundle to int8 step by step; keep the fastest step that is accurate enough in its runtime."""
    from effnet import quantize as quantize_bundle
    from effnet.jobs.quantize import PLOT
    from effnet.report.facts import SearchFacts
    from effnet.report.plot_sensitivity import sensitivity_sentence

    with TerminalListener() as listener:
        result = quantize_bundle(**values, listener=listener)
    found = result.record
    print_steps(found.steps)
    print_text(found.sentence)
    if found.tested:
        tested = found.tested
        now, before = (both(tested[name], tested.get(f"{name}_balanced")) for name in ("winner", "fp32"))
        print_text(f"test accuracy {now}; fp32 {before}")
    shown = f": {result.folder / PLOT} shows them" if found.sensitivity else ""
    print_text(sensitivity_sentence(SearchFacts.from_dict(found.to_dict())) + shown)
    print_text(f"{result.folder} now predicts with {found.format}")


def print_steps(steps: Any) -> None:
    """Print the table of the quantization steps."""
    rows = [
        (
            step.name,
            "-" if step.accuracy is None else both(step.accuracy, step.balanced_accuracy),
            "-" if step.paired is None else f"{-step.paired.lost:+d} {step.paired.gained:+d}",
            "-" if step.latency_ms is None else f"{step.latency_ms:.3g}",
            "-" if step.speed is None else f"{step.speed:.2f}",
            "-" if step.size_mb is None else f"{step.size_mb:.3g}",
            "-" if step.memory_mb is None else f"{step.memory_mb:.3g}",
            "accepted" if step.accepted else "refused",
            step.reason,
        )
        for step in steps
    ]
    columns = ("step", "accuracy", "images", "ms", "speed", "MB", "memory MB", "verdict", "why")
    print_table(columns, rows, left=("step", "verdict", "why"))
