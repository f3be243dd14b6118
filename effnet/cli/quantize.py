"""quantize: a bundle in fewer bits, as far as its accuracy holds."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.console import TerminalListener, print_table, print_text
from effnet.cli.models import Bundle, Threads
from effnet.system.text import both


class RunBy(StrEnum):
    """The runtimes that an artifact can be proven in here."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"
    litert = "litert"
    executorch = "executorch"


def quantize(
    bundle: Bundle,
    data: Annotated[str, typer.Argument(metavar="DATA", help="The data that the bundle was trained on, as for fit.")],
    runtime: Annotated[RunBy, typer.Option(help="What will run it, and runs it here to prove it.")] = RunBy.onnxruntime,
    max_drop: Annotated[
        float, typer.Option(min=0, max=99, help="Points of validation accuracy that a step may lose.")
    ] = 0.5,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Median time of one image; as fast as can be otherwise.")
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Size of the artifact, in 10^6 bytes.")] = None,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(
            help="Peak memory of the model beyond the idle runtime, in 10^6 bytes; decoding an image comes on top."
        ),
    ] = None,
    threads: Threads = 1,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="No step that trains: no other activation, no rounding in training.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="Past this time no new step begins.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where a copy of the bundle goes; else it is changed itself.")
    ] = None,
) -> None:
    """Round a bundle to 8 bits step by step, and keep what is faster and as right in its runtime."""
    from effnet.compressing.job import PLOT
    from effnet.compressing.job import quantize as quantize_bundle
    from effnet.compressing.sensitivity import sensitivity_sentence
    from effnet.compressing.verdict import Gate, Limits

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
        print_text(f"test accuracy {now}; in 32 bits {before}")
    shown = f": {Path(out or bundle) / PLOT} shows them" if found.sensitivity else ""
    print_text(sensitivity_sentence(found.to_dict()) + shown)
    print_text(f"{out or bundle} now predicts with {found.format}")


def print_steps(steps: Any) -> None:
    """Print the table of a ladder's steps."""
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
