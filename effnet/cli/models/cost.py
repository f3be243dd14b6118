"""models cost: what a network needs, without torch."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from effnet.cli.console import amount, print_json, print_table
from effnet.cli.options import Format, Output, Resolution, Subject
from effnet.errors import InputError

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec


def cost(
    subject: Subject,
    resolution: Resolution = None,
    training: Annotated[bool, typer.Option("--training", help="Print the memory of training as well.")] = False,
    batch: Annotated[int, typer.Option(help="Batch size in training.")] = 32,
    output: Format = Output.table,
) -> None:
    """Print a network's cost: parameters, MACs, activations, memory, bytes by precision."""
    from effnet.arch.cost import cost as cost_of
    from effnet.bundle.spec_of import read_spec

    spec = read_spec(subject)
    more = _training_bytes(spec, batch, resolution) if training else {}
    _print_cost(spec.name, cost_of(spec, resolution=resolution), more, output)


def _training_bytes(spec: "ArchSpec", batch: int, resolution: int | None) -> dict[str, int]:
    """Return the memory of fp32 training with AdamW on a CPU: with fused kernels, without, with recomputation."""
    if spec.decoder is not None:
        raise InputError(f"--training predicts the memory of classifiers; {spec.name} has a decoder: leave it out")
    from effnet.training.memory.predict import training_memory
    from effnet.training.recipe.schema import Recipe, Train

    def need(*, fused: bool, recompute: Literal["none", "stages"] = "none") -> int:
        recipe = Recipe(train=Train(batch_size=batch, recompute=recompute))
        return training_memory(spec, recipe, resolution=resolution, fused=fused).total

    return {
        "training_batch": batch,
        "training_memory_bytes": need(fused=True),
        "training_memory_bytes_plain": need(fused=False),
        "training_memory_bytes_recompute": need(fused=True, recompute="stages"),
    }


def _print_cost(name: str, total, more: dict[str, int], output: Output) -> None:
    data = {
        "name": name,
        "resolution": total.resolution,
        "params": total.params,
        "macs": total.macs,
        "activations": total.activations,
        "peak_memory_bytes": total.peak_memory_bytes,
        **{f"weight_bytes_{precision}": total.weight_bytes(precision) for precision in ("fp32", "fp16", "int8")},
        **more,
    }
    if output is Output.json:
        print_json(data)
        return
    print_table(
        ("quantity", "exact", "about"),
        [(k, f"{v:,}" if isinstance(v, int) else v, amount(v) if isinstance(v, int) else "") for k, v in data.items()],
        left=("quantity",),
    )
