"""prune: make a bundle smaller and faster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.console import TerminalListener, amount, print_table, print_text
from effnet.cli.options import Bundle, Data, Threads
from effnet.errors import InputError
from effnet.system.text import both

if TYPE_CHECKING:
    from effnet.jobs.prune import PruneResult

Out = Annotated[Path, typer.Option(help="Folder of the pruned bundle, new or empty.")]
Macs = Annotated[float | None, typer.Option(help="Fraction of the MACs to keep; 0.5 by default.")]
Params = Annotated[float | None, typer.Option(help="Fraction of the parameters to keep, instead of --macs.")]
Activation = Annotated[
    str,
    typer.Option(metavar="relu6|...", help="Replacement activation, relu6 or hard_swish; alone, it prunes nothing."),
]
Method = Annotated[
    str,
    typer.Option(metavar="taylor|l1|l2|bn", help="Importance criterion: taylor uses data; l1, l2 and bn use weights."),
]
Scope = Annotated[
    str, typer.Option(metavar="global|stage", help="One threshold for all stages, or the same share of each.")
]
Steps = Annotated[int, typer.Option(help="Number of pruning steps; training follows each.")]
Epochs = Annotated[int | None, typer.Option(help="Training epochs in total; 20 by default.")]
Minutes = Annotated[float | None, typer.Option(help="Minutes of training, instead of --epochs.")]
Teacher = Annotated[str, typer.Option(metavar="BUNDLE", help="Teacher of the distillation; by default the original.")]
DropBlocks = Annotated[bool, typer.Option("--drop-blocks", help="Allow whole blocks to be removed.")]
RoundTo = Annotated[
    int | None, typer.Option(help="Pruned widths are a multiple of this; default: the vector width of this CPU.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of training.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")]


def prune(
    bundle: Bundle,
    data: Data,
    out: Out,
    macs: Macs = None,
    params: Params = None,
    activation: Activation = "",
    method: Method = "taylor",
    scope: Scope = "global",
    steps: Steps = 3,
    epochs: Epochs = None,
    minutes: Minutes = None,
    teacher: Teacher = "",
    drop_blocks: DropBlocks = False,
    round_to: RoundTo = None,
    threads: Threads = 1,
    seed: Seed = 0,
    resume: Resume = False,
) -> None:
    """Make a bundle smaller and faster: prune the least important channels, fine-tune with knowledge distillation."""
    from effnet.jobs.prune import Options, prune_bundle

    if macs is not None and params is not None:
        raise InputError("give --macs or --params, not both")
    options = Options(
        share=next((share for share in (params, macs) if share is not None), 1.0 if activation else 0.5),
        count="macs" if params is None else "params",
        steps=steps,
        method=method,  # type: ignore[arg-type]  # checked with the other options
        scope=scope,  # type: ignore[arg-type]
        teacher=teacher,
        activation=activation,
        epochs=epochs,
        minutes=minutes,
        drop_blocks=drop_blocks,
        round_to=round_to,
        threads=threads,
        seed=seed,
    )
    with TerminalListener() as listener:
        result = prune_bundle(bundle, data, out=out, options=options, resume=resume, listener=listener)
    _print_result(result)


def _print_result(result: "PruneResult") -> None:
    report = result.report
    rows = [
        (
            name,
            amount(side["params"]),
            amount(side["macs"]),
            side["blocks"],
            f"{side['latency_ms']:.3g}",
            both(side["test_accuracy"], side.get("test_balanced_accuracy")),
        )
        for name, side in (("original", report["before"]), ("now", report["after"]))
    ]
    print_table(("network", "params", "MACs", "blocks", "p50 ms", "test accuracy"), rows, left=("network",))
    print_text(
        f"Latency is {report['latency_ratio']:.2f} of the original's in ONNX Runtime, with interleaved timing; "
        f"accuracy drop {report['points_lost']:+.2f} percentage points on {report['after']['test_images']} images."
    )
    for warning in report["warnings"]:
        print_text(f"WARNING: {warning}")
    print_text(f"Bundle: {result.folder}")
