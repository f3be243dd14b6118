"""A spec as rows and as text: the paper's Table 1, then every layer with its cost."""

import math
from dataclasses import dataclass

from effnet.arch.cost import cost, layer_costs
from effnet.arch.decoders.record import Detector, PyramidDecoder, Segmenter, UNet
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
    if spec.head_channels:
        rows.append(StageRow(operator="conv1", resolution=side, stride=1, channels=spec.head_channels, layers=1))
    if spec.decoder is not None:
        return rows + _decoder_rows(spec)
    if spec.num_classes:
        rows.append(StageRow(operator="pool, linear", resolution=side, stride=1, channels=spec.num_classes, layers=1))
    return rows


def _decoder_rows(spec: ArchSpec) -> list[StageRow]:
    """Return the rows of a decoder: the neck, and the heads or what gives the mask."""
    decoder = spec.decoder
    if isinstance(decoder, Segmenter) and isinstance(decoder.decoder, UNet):
        unet = decoder.decoder
        level = spec.total_stride.bit_length() - 1 - len(unet.channels)
        side, kind = output_side(spec.resolution, 2**level), "separable" if unet.separable else "whole"
        last = StageRow(
            operator=f"mask, conv{unet.last_kernel}", resolution=side, stride=1, channels=spec.num_classes, layers=1
        )
        channels, layers = unet.channels[-1], len(unet.channels)
        return [StageRow(operator=f"unet, {kind}", resolution=side, stride=1, channels=channels, layers=layers), last]
    if isinstance(decoder, Detector):
        neck, priors, layers = decoder.neck, decoder.head.priors, decoder.head.repeats + 1
        last = f"boxes and scores, {priors} a cell"
        first = neck.min_level
    else:
        assert isinstance(decoder, Segmenter)
        assert isinstance(decoder.decoder, PyramidDecoder)
        neck, layers, first = decoder.decoder.neck, 2, decoder.decoder.to_level
        last = "sum of levels, mask"
    pyramid = StageRow(
        operator=f"bifpn P{neck.min_level}-P{neck.max_level}, {neck.fusion}",
        resolution=output_side(spec.resolution, 2**neck.min_level),
        stride=1,
        channels=neck.channels,
        layers=neck.cells,
    )
    side = output_side(spec.resolution, 2**first)
    return [pyramid, StageRow(operator=last, resolution=side, stride=1, channels=spec.num_classes, layers=layers)]


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
