"""A spec as rows and as text: the paper's Table 1, then every layer with its cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from effnet.arch.cost import cost, layer_costs
from effnet.arch.decoders.record import Detector, PointHead, Pyramid, UNet
from effnet.arch.layers import output_side
from effnet.arch.spec import ArchSpec, BlockSpec, as_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One row of Table 1; `resolution` is the side of the stage's input in pixels, `layers` its repeats."""

    operator: str
    resolution: int
    stride: int
    channels: int
    layers: int


def stage_rows(spec: ArchSpec, *, resolution: int | None = None) -> list[StageRow]:
    """Return the rows of the paper's Table 1 for this network, from stem to classifier.

    Resolutions follow the strides, unlike the printed table, whose stages 5 and 6 are off by one.
    """
    side = spec.resolution if resolution is None else resolution
    stem = spec.stem
    name = f"conv{stem.kernel_size}" + (" + max pool" if stem.max_pool else "")
    stride = stem.stride * (2 if stem.max_pool else 1)
    rows = [StageRow(operator=name, resolution=side, stride=stride, channels=stem.channels, layers=1)]
    side = output_side(side, stride)
    for blocks in spec.stages:
        stride = math.prod(block.stride for block in blocks)
        width = blocks[-1].out_channels
        rows.append(
            StageRow(operator=_operator(blocks), resolution=side, stride=stride, channels=width, layers=len(blocks))
        )
        side = output_side(side, stride)
    if spec.decoder is not None:
        return rows + _decoder_rows(spec, resolution=spec.resolution if resolution is None else resolution)
    if spec.head_channels:
        rows.append(StageRow(operator="conv1", resolution=side, stride=1, channels=spec.head_channels, layers=1))
    if spec.num_classes:
        pool = f"pool, also of {pooled_in_words(spec.pooled)}" if spec.pooled else "pool"
        linear = f"{pool}, linear"
        rows.append(StageRow(operator=linear, resolution=side, stride=1, channels=spec.num_classes, layers=1))
    return rows


def _decoder_rows(spec: ArchSpec, *, resolution: int) -> list[StageRow]:
    """Return the rows of a decoder; their resolution is that of its largest feature map."""

    def row(operator: str, level: int, channels: int, layers: int) -> StageRow:
        side = output_side(resolution, 2**level)
        return StageRow(operator=operator, resolution=side, stride=1, channels=channels, layers=layers)

    def pyramid(neck: Pyramid) -> StageRow:
        name = f"feature pyramid, levels {neck.min_level} to {neck.max_level}"
        return row(name, neck.min_level, neck.channels, neck.cells)

    decoder = spec.decoder
    if isinstance(decoder, Detector):
        priors = decoder.head.priors
        name = "points" if isinstance(decoder.head, PointHead) else f"{priors} anchors a cell"
        heads = row(f"heads, {name}", decoder.neck.min_level, spec.num_classes * priors, decoder.head.repeats + 1)
        return [pyramid(decoder.neck), heads]
    assert decoder is not None
    found = decoder.decoder
    if isinstance(found, UNet):
        last = spec.total_stride.bit_length() - 1 - len(found.channels)
        widths = ", ".join(map(str, found.channels))
        blocks = row(f"U-Net of {widths} channels", last, found.channels[-1], len(found.channels))
        return [blocks, row(f"conv{found.last_kernel}", last, spec.num_classes, 1)]
    summed = row("sum of the levels, separable conv3", found.to_level, found.channels, 1)
    return [pyramid(found.neck), summed, row("conv1", found.to_level, spec.num_classes, 1)]


def pooled_in_words(pooled: Sequence[int]) -> str:
    """Return the stages of a spec's `pooled` with their numbers from 1; empty if there are none."""
    *others, last = [str(stage + 1) for stage in pooled] or [""]
    if not others:
        return last and f"stage {last}"
    return f"stages {', '.join(others)} and {last}"


def _operator(blocks: tuple[BlockSpec, ...]) -> str:
    """Return the name of a stage's operator, from its last block, the one that repeats."""
    block = blocks[-1]
    text = f"{block.kind}{block.kernel_size}"
    if block.rules.middle in ("expansion", "own"):
        text += f", expand {block.mid_channels / block.in_channels:.3g}"
    if block.se_channels:
        text += f", se {block.se_channels / block.in_channels:.3g}"
    if block.eca_kernel:
        text += f", eca {block.eca_kernel}"
    if block.activation:
        text += f", {block.activation}"
    if all(b.residual == "none" for b in blocks) and len(blocks) > 1:
        text += ", no skip"
    return text


def describe(spec: ArchSpec | str) -> str:
    """Return a network, or the one of a name, as text: totals, stages, then every layer with parameters and MACs.

    >>> print(describe("b0").splitlines()[0])
    b0: 3 x 224 x 224 -> 1000 classes
    """
    spec = as_spec(spec)
    total = cost(spec)
    height, width = spec.input_size
    lines = [
        f"{spec.name}: {spec.in_channels} x {height} x {width} -> {spec.num_classes} classes",
        f"params {total.params}, macs {total.macs}, activations {total.activations}, "
        f"peak memory {total.peak_memory_bytes} bytes",
        f"activation {spec.activation}, se gate {spec.se_gate}, norm epsilon {spec.norm_epsilon:g}, "
        f"padding {spec.padding}",
        "",
        f"{'stage':>5}  {'operator':<34}{'resolution':>10}{'stride':>8}{'channels':>10}{'layers':>8}",
    ]
    for number, row in enumerate(stage_rows(spec)):
        lines.append(
            f"{number:>5}  {row.operator:<34}{row.resolution:>10}{row.stride:>8}{row.channels:>10}{row.layers:>8}"
        )
    lines += ["", f"{'layer':<30}{'op':<13}{'in':>7}{'out':>7}{'size':>9}{'params':>12}{'macs':>16}"]
    for layer in layer_costs(spec):
        size = "x".join(map(str, layer.size))
        lines.append(
            f"{layer.name:<30}{layer.op:<13}{layer.in_channels:>7}{layer.out_channels:>7}{size:>9}"
            f"{layer.params:>12}{layer.macs:>16}"
        )
    return "\n".join(lines) + "\n"
