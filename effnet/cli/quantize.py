"""quantize: quantize a bundle within an accuracy limit."""

from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.console import TerminalListener, print_table, print_text
from effnet.cli.options import Bundle, Runnable, Threads
from effnet.runtimes.registry import DEFAULT
from effnet.system.text import both


def quantize(
    bundle: Bundle,
    data: Annotated[str, typer.Argument(metavar="DATA", help="The data that the bundle was trained on, as for fit.")],
    runtime: Annotated[Runnable, typer.Option(help="Inference runtime to target and to verify in.")] = Runnable[
        DEFAULT
    ],
    max_drop: Annotated[
        float, typer.Option(min=0, max=99, help="Maximum drop of validation accuracy of a step, in percentage points.")
    ] = 0.5,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Maximum median latency of one image, in ms; default: as low as possible.")
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Maximum size of the artifact, in 10^6 bytes.")] = None,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(
            help="Maximum peak memory of the model beyond the idle runtime, in 10^6 bytes; image decoding comes on top."
        ),
    ] = None,
    threads: Threads = 1,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Post-training quantization only; no activation replacement, no QAT.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="Time limit in minutes; no new step starts after it.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for a quantized copy; by default the bundle itself is changed."),
    ] = None,
) -> None:
    """Quantize a bundle to int8 step by step; keep the fastest step that is accurate enough in its runtime."""
    from effnet.compression.step import Gate, Limits
    from effnet.jobs.quantize import PLOT
    from effnet.jobs.quantize import quantize as quantize_bundle
    from effnet.report.plot_sensitivity import sensitivity_sentence

    with TerminalListener() as listener:
        found = quantize_bundle(
            bundle,
            data,
            runtime=runtime.value,
            limits=Limits(latency_ms=max_latency_ms, size_mb=max_size_mb, memory_mb=max_memory_mb),
            gate=Gate(max_drop=max_drop / 100),
            threads=threads,
            train=not no_train,
            minutes=minutes,
            out=out,
            listener=listener,
        )
    print_steps(found.steps)
    print_text(found.sentence)
    if found.tested:
        tested = found.tested
        now, before = (both(tested[name], tested.get(f"{name}_balanced")) for name in ("winner", "fp32"))
        print_text(f"test accuracy {now}; fp32 {before}")
    shown = f": {Path(out or bundle) / PLOT} shows them" if found.sensitivity else ""
    print_text(sensitivity_sentence(found.to_dict()) + shown)
    print_text(f"{out or bundle} now predicts with {found.format}")


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
