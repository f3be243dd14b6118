"""models, show, cost, scale: networks as data, without torch."""

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from effnet.arch.spec import ArchSpec
from effnet.cli.console import amount, print_json, print_table, print_text


class Output(StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


Format = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Resolution = Annotated[int | None, typer.Option(help="Input resolution, in pixels.")]
Subject = Annotated[str, typer.Argument(metavar="NAME|BUNDLE|SPEC.json", help="A network's name, a bundle, or a spec.")]


def models(output: Format = Output.table) -> None:
    """List every named network with its cost and its published accuracy."""
    from effnet.arch.catalog import FAMILIES, get_spec, published
    from effnet.arch.cost import cost

    rows: list[dict[str, Any]] = []
    for family, names in FAMILIES.items():
        for name in names:
            spec, found = get_spec(name), published(name)
            total = cost(spec)
            rows.append(
                {
                    "name": name,
                    "family": family,
                    "params": total.params,
                    "macs": total.macs,
                    "resolution": spec.resolution,
                    "top1": found.top1 if found else None,
                    "source": found.source if found else None,
                }
            )
    if output is Output.json:
        print_json(rows)
        return
    print_table(
        ("name", "params", "GMACs", "resolution", "top-1 %", "published in"),
        [
            (r["name"], f"{r['params']:,}", f"{r['macs'] / 1e9:.3f}", r["resolution"], r["top1"], r["source"])
            for r in rows
        ],
        left=("name", "published in"),
    )


def show(
    subject: Subject,
    resolution: Resolution = None,
    layers: Annotated[bool, typer.Option(help="Print every layer as well.")] = True,
) -> None:
    """Show a network: its stages as the paper's Table 1, then every layer with its cost."""
    from effnet.arch.describe import describe
    from effnet.bundle.spec_of import read_spec

    spec = read_spec(subject)
    if resolution is not None:
        spec = dataclasses.replace(spec, resolution=resolution)
    text = describe(spec)
    print_text((text if layers else text.split("\n\nlayer", 1)[0]).rstrip("\n"))


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


def _training_bytes(spec: ArchSpec, batch: int, resolution: int | None) -> dict[str, int]:
    """Return the memory of fp32 training with AdamW on a CPU: with fused kernels, without, with recomputation."""
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


def scale(
    subject: Subject,
    phi: Annotated[float | None, typer.Option(help="Compound coefficient; negative for smaller networks.")] = None,
    alpha: Annotated[float, typer.Option(help="Depth grows by alpha^phi.")] = 1.2,
    beta: Annotated[float, typer.Option(help="Width grows by beta^phi.")] = 1.1,
    gamma: Annotated[float, typer.Option(help="Resolution grows by gamma^phi.")] = 1.15,
    max_macs: Annotated[
        str | None, typer.Option(help="Solve for the largest phi within this limit, such as 300M.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(help="Solve for the largest phi within this limit, such as 5M.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Factor on channels, instead of phi's.")] = None,
    depth: Annotated[float | None, typer.Option(help="Factor on repeats, instead of phi's.")] = None,
    resolution: Resolution = None,
    out: Annotated[Path | None, typer.Option(help="Write the network as JSON to this file.")] = None,
    output: Format = Output.table,
) -> None:
    """Scale a network by compound scaling, by given factors, or to a budget."""
    from effnet.arch.codec import spec_to_dict
    from effnet.arch.cost import cost as cost_of
    from effnet.arch.scale import scale as scale_spec
    from effnet.arch.scale import solve_phi
    from effnet.bundle.config import write_text
    from effnet.bundle.spec_of import read_spec
    from effnet.errors import InputError
    from effnet.measurement.budget import parse_amount

    base = read_spec(subject)
    powers: dict[str, Any] = {"alpha": alpha, "beta": beta, "gamma": gamma}
    if max_macs is not None or max_params is not None:
        if phi is not None or width is not None or depth is not None:
            raise InputError("--max-macs and --max-params solve for phi: leave out --phi, --width and --depth")
        limits: dict[str, Any] = {
            "max_macs": parse_amount(max_macs) if max_macs else None,
            "max_params": parse_amount(max_params) if max_params else None,
        }
        phi = solve_phi(base, **limits, **powers, resolution=resolution)
    spec = scale_spec(base, phi=phi, **powers, width=width, depth=depth, resolution=resolution)
    if out is not None:
        write_text(out, json.dumps(spec_to_dict(spec), indent=1) + "\n")
    if output is Output.json:
        print_json({"phi": phi, **spec_to_dict(spec), "cost": dataclasses.asdict(cost_of(spec))})
        return
    _print_scaled(base, spec)


def _print_scaled(base: ArchSpec, spec: ArchSpec) -> None:
    from effnet.arch.cost import cost as cost_of
    from effnet.arch.describe import stage_rows

    before, after = cost_of(base), cost_of(spec)
    print_text(f"{spec.name}: {amount(after.params)} params, {amount(after.macs)} MACs at {spec.resolution} pixels")
    print_text(f"({base.name}: {amount(before.params)} params, {amount(before.macs)} MACs at {base.resolution} pixels)")
    rows = [(r.operator, r.resolution, r.stride, r.channels, r.layers) for r in stage_rows(spec)]
    print_table(("operator", "resolution", "stride", "channels", "layers"), rows, left=("operator",))
