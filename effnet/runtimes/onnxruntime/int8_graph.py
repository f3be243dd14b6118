"""Write a spec, its folded weights and its layers' ranges directly as an int8 ONNX graph: no torch.

Quantized tensors lie between QuantizeLinear and DequantizeLinear; ONNX Runtime fuses the operations between two such
pairs into one integer kernel. Weights are int8, symmetric, one scale per channel; biases int32; everything else uint8
with a zero point. Operations that cost nothing in integers are folded away: a ReLU, ReLU6 or hard sigmoid after a
convolution or sum becomes the range at which its output saturates, and the images go into the first convolution
unchanged. The last convolutions of a decoder have a scale each, and are converted to floats before they are joined.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.layers import INPUT, Layer, Size, map_sizes, named_layers
from effnet.arch.spec import ArchSpec
from effnet.runtimes.onnxruntime.graph import (
    Graph,
    add_layer,
    add_maps,
    add_normalisation,
    add_outputs,
    finish_graph,
    pads_of,
    start_graph,
)
from effnet.runtimes.onnxruntime.int8_decoded import write_fusion
from effnet.runtimes.onnxruntime.int8_ranges import HARD_LIMIT, LEVELS, Affine, Ranges, affine
from effnet.runtimes.onnxruntime.int8_schemes import check_layers, folded_clips, schemes_of
from effnet.runtimes.onnxruntime.int8_stem import add_apart, add_blocks, add_paired_conv, can_pair, paired_kernel
from effnet.runtimes.onnxruntime.int8_tensors import Tensor, dequantize, quantize, to_8_bits
from effnet.runtimes.onnxruntime.session import IMAGE
from effnet.system.processor import int8_saturates
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.task import Output
from effnet.weights.folding import own_weights, scaled_stem

if TYPE_CHECKING:
    import onnx

# The largest int8 weight; and with 7 bits, which keeps the sum of two products within 16 bits.
WEIGHT_LEVELS, SAFE_LEVELS = 127, 63
# The largest distance, in pixel levels, between a channel's mean and the zero point that replaces it in the padding.
_MAX_OFFSET = 16
_MAX_BIAS = 2.0**30
PROBE = "probe"


@dataclass(slots=True, kw_only=True)
class _Writer:
    """The state that the layers' writers share."""

    spec: ArchSpec
    graph: Graph
    weights: Mapping[str, np.ndarray]
    schemes: Mapping[str, Affine]
    folded: Mapping[str, str]
    float_layers: frozenset[str]
    weight_levels: int
    sizes: Mapping[str, Size]
    paired: bool
    tensors: dict[str, Tensor] = field(default_factory=dict)


def levels_here() -> int:
    """Return the largest int8 weight for this processor: SAFE_LEVELS if sums of its int8 products saturate."""
    return SAFE_LEVELS if int8_saturates() else WEIGHT_LEVELS


def to_qdq(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    ranges: Ranges,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    float_layers: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    weight_levels: int | None = None,
    pair_stem: bool = False,
    answers: Sequence[Output] = (PROBABILITIES,),
    maps: bool = False,
) -> "onnx.ModelProto":
    """Return the int8 ONNX model of `spec` with folded `weights` and the outputs' `ranges`.

    Images, `answers`, `maps`, `mean`, `std` and `resolution` are as in to_onnx. `float_layers` are convolutions and
    linear layers whose weights, input and output stay fp32. `weight_levels` is the largest weight, by default that of
    `levels_here`. `pair_stem` writes the first convolution as in int8_stem, if possible: the same numbers, faster on
    x86. Raises SpecError if a range is missing or a float layer is unknown.
    """
    writer = _start(
        spec, weights, ranges, mean=mean, std=std, resolution=resolution, float_layers=float_layers,
        weight_levels=weight_levels, pair_stem=pair_stem,
    )  # fmt: skip
    for name, layer in named_layers(spec):
        writer.tensors[name] = _write_layer(writer, name, layer)
    names = {name: tensor.values for name, tensor in writer.tensors.items()}
    outputs = add_outputs(writer.graph, names, spec, answers, writer.sizes)
    if maps:
        outputs |= add_maps(writer.graph, names, spec, writer.sizes)
    return finish_graph(writer.graph, outputs, spec, writer.sizes[INPUT], metadata or {})


def to_probe(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    ranges: Ranges,
    layer: str,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    float_layers: Sequence[str] = (),
) -> bytes:
    """Return the file of the int8 network up to a convolution or linear layer; it outputs the layer's mean output.

    The output is [images, channels], the mean of the int32 sums before they are clipped and quantized.
    """
    writer = _start(spec, weights, ranges, mean=mean, std=std, resolution=resolution, float_layers=float_layers)
    for name, found in named_layers(spec):
        writer.tensors[name] = _write_layer(writer, name, found)
        if name == layer:
            break
    graph, output = writer.graph, f"{layer}.float" if layer in writer.schemes else layer
    if found.op == "conv":
        output = graph.node("GlobalAveragePool", [output], "probe.map")
    if layer in writer.schemes and _gates(writer, layer):  # undo the folded gate
        half, limit = (
            graph.constant("probe.half", np.array(0.5, np.float32)),
            graph.constant("probe.limit", np.array(6, np.float32)),
        )
        output = graph.node("Mul", [graph.node("Sub", [output, half], "probe.centred"), limit], "probe.scaled")
    graph.node("Flatten", [output], PROBE, axis=1)
    return finish_graph(
        graph, {PROBE: ["batch", found.out_channels]}, spec, writer.sizes[INPUT], {}
    ).SerializeToString()


def _start(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    ranges: Ranges,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None,
    float_layers: Sequence[str],
    weight_levels: int | None = None,
    pair_stem: bool = False,
) -> _Writer:
    graph, size = start_graph(spec, mean, std, resolution)
    layers = dict(named_layers(spec))
    check_layers(layers, ranges, float_layers)
    folded, kept = folded_clips(layers), frozenset(float_layers)
    stem, sizes = layers["stem.conv"], map_sizes(layers.items(), size)
    writer = _Writer(
        spec=spec, graph=graph, weights=own_weights(spec, weights),
        schemes=schemes_of(layers, folded, ranges, kept), folded=folded, float_layers=kept,
        weight_levels=weight_levels or levels_here(), sizes=sizes, paired=False,
    )  # fmt: skip
    writer.paired = pair_stem and "stem.conv" in writer.schemes and can_pair(stem, size, pads_of(stem, sizes, spec))
    _write_image(writer, mean, std)
    return writer


def _write_image(writer: _Writer, mean: Sequence[float], std: Sequence[float]) -> None:
    """Add the image input of the first convolution.

    Pixels are uint8 already, with scale 1. Their zero point, one for all channels, replaces the mean, and its
    difference from each channel's mean goes into the bias. If the means differ too much, pixels are centred as floats.
    """
    graph, centre = writer.graph, 255.0 * np.asarray(mean, np.float64)
    kernel = scaled_stem(writer.weights, std)
    zero_point = int(np.clip(np.round((centre.min() + centre.max()) / 2), 0, LEVELS))
    writer.weights = {**writer.weights, "stem.conv.weight": kernel}
    if "stem.conv" in writer.float_layers:
        writer.tensors[INPUT] = Tensor(values=add_normalisation(graph, mean))
    elif np.abs(centre - zero_point).max() <= _MAX_OFFSET:
        shift = (kernel.astype(np.float64).sum((2, 3)) * (zero_point - centre)[None]).sum(1)
        bias = (writer.weights["stem.conv.bias"] + shift).astype(np.float32)
        writer.weights = {**writer.weights, "stem.conv.bias": bias}
        if writer.paired:
            x = add_blocks(graph, writer.sizes[INPUT], writer.spec.in_channels)
        else:
            x = graph.node("Transpose", [IMAGE], "normalise.nchw", perm=[0, 3, 1, 2])
        writer.tensors[INPUT] = dequantize(graph, x, Affine(1.0, zero_point))
    else:
        writer.paired = False
        x = add_normalisation(graph, mean)
        writer.tensors[INPUT] = quantize(graph, x, affine(-centre.max(), LEVELS - centre.min()))


def _write_layer(writer: _Writer, name: str, layer: Layer) -> Tensor:
    inputs = [writer.tensors[source] for source in layer.inputs]
    scheme = writer.schemes.get(name)
    match layer.op:
        case "norm":
            return inputs[0]
        case "conv" | "linear":
            return _write_weighted(writer, name, layer, inputs[0])
        case "act" if layer.inputs[0] and _is_folded(writer, name):
            return inputs[0]
        case "act" if layer.function == "hard_swish" and inputs[0].scheme and scheme:
            return _write_hard_swish(writer, name, inputs[0])
        case "act" if layer.function == "silu" and inputs[0].scheme and scheme:
            return _write_silu(writer, name, inputs[0])
        case "max_pool" | "resize" if inputs[0].scheme:
            pads = pads_of(layer, writer.sizes, writer.spec) if layer.op == "max_pool" else ()
            x = add_layer(writer.graph, name, layer, [inputs[0].quantized], pads=pads, sizes=writer.sizes)
            return dequantize(writer.graph, x, inputs[0].scheme)
        case "fuse" if scheme:
            return write_fusion(writer.graph, name, inputs, writer.weights[f"{name}.weight"], writer.schemes)
    kernel: tuple[str, ...] = ()
    if layer.op == "channel_conv":  # a few numbers on one pixel, in floats
        kernel = (writer.graph.constant(f"{name}.weight", writer.weights[f"{name}.weight"]),)
    elif layer.op == "fuse":
        factors = enumerate(writer.weights[f"{name}.weight"])
        kernel = tuple(writer.graph.constant(f"{name}.weight{number}", factor) for number, factor in factors)
    x = add_layer(
        writer.graph, name, layer, [tensor.values for tensor in inputs], kernel,
        pads=pads_of(layer, writer.sizes, writer.spec), sizes=writer.sizes, output=f"{name}.float" if scheme else None,
    )  # fmt: skip
    return quantize(writer.graph, x, scheme) if scheme else Tensor(values=x)


def _is_folded(writer: _Writer, act: str) -> bool:
    return any(found == act and source in writer.schemes for source, found in writer.folded.items())


def _write_weighted(writer: _Writer, name: str, layer: Layer, x: Tensor) -> Tensor:
    """Add a convolution or a linear layer."""
    graph, scheme = writer.graph, writer.schemes.get(name)
    weight, bias = writer.weights[f"{name}.weight"], writer.weights[f"{name}.bias"]
    if scheme and _gates(writer, name):
        # hard_sigmoid(x) = clip(x / 6 + 0.5, 0, 1), and the output saturates at 0 and 1.
        weight, bias = weight / (2 * HARD_LIMIT), bias / (2 * HARD_LIMIT) + 0.5
    if name in writer.float_layers:
        parameters = (graph.constant(f"{name}.weight", weight), graph.constant(f"{name}.bias", bias))
    else:
        parameters = _add_parameters(writer, name, weight, bias, x.scheme)
    source = x.values
    if layer.op == "linear" and x.scheme:
        # Flattening a float between two scales would prevent ONNX Runtime from fusing.
        flat = graph.node("Flatten", [x.quantized], f"{name}.flatten", axis=1)
        source = dequantize(graph, flat, x.scheme).values
        return Tensor(values=graph.node("Gemm", [source, *parameters], name, transB=1))
    pads = pads_of(layer, writer.sizes, writer.spec)
    if name == "stem.conv" and writer.paired:
        assert scheme is not None
        out = add_paired_conv(graph, [source, *parameters], pads, f"{name}.float")
        apart = add_apart(
            graph, to_8_bits(graph, out, scheme), name, size=writer.sizes[name], channels=layer.out_channels
        )
        return dequantize(graph, apart, scheme)
    out = add_layer(graph, name, layer, [source], parameters, pads=pads, output=f"{name}.float" if scheme else None)
    return quantize(graph, out, scheme) if scheme else Tensor(values=out)


def _gates(writer: _Writer, layer: str) -> bool:
    """Return whether a hard sigmoid is folded into a convolution."""
    return writer.spec.se_gate == "hard_sigmoid" and writer.folded.get(layer, "").endswith(".gate")


def _add_parameters(
    writer: _Writer, name: str, weight: np.ndarray, bias: np.ndarray, x: Affine | None
) -> tuple[str, str]:
    """Add int8 weights and, if the input is quantized too, an int32 bias; return the names of their values."""
    graph, step = writer.graph, x.scale if x else 1.0
    quantized, scales = quantize_weight(weight, levels=writer.weight_levels, least=np.abs(bias) / (_MAX_BIAS * step))
    if name == "stem.conv" and writer.paired:
        layer = dict(named_layers(writer.spec))[name]
        quantized = paired_kernel(quantized, left=pads_of(layer, writer.sizes, writer.spec)[1])
        scales, bias = np.tile(scales, 2), np.tile(bias, 2)
    values = _dequantized(graph, f"{name}.weight", quantized, scales)
    if x is None:
        return values, graph.constant(f"{name}.bias", bias.astype(np.float32))
    bias_scales = (np.float32(step) * scales).astype(np.float32)
    rounded = np.round(bias.astype(np.float64) / bias_scales).astype(np.int32)
    return values, _dequantized(graph, f"{name}.bias", rounded, bias_scales)


def quantize_weight(
    weight: np.ndarray, *, levels: int = WEIGHT_LEVELS, least: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights and their scale for each output channel; no scale is below `least`."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1).astype(np.float64)
    scales = np.maximum(np.where(largest > 0, largest / levels, 1.0), np.maximum(least, 1e-20)).astype(np.float32)
    shape = (-1,) + (1,) * (weight.ndim - 1)
    return np.clip(np.round(weight / scales.reshape(shape)), -levels, levels).astype(np.int8), scales


def _dequantized(graph: Graph, name: str, quantized: np.ndarray, scales: np.ndarray) -> str:
    inputs = [graph.constant(f"{name}.quantized", quantized), graph.constant(f"{name}.scale", scales)]
    if quantized.dtype == np.int8:  # without it ONNX Runtime leaves linear layers in fp32; a bias needs none
        inputs.append(graph.shared(f"zero_points.{len(scales)}", np.zeros(scales.shape, np.int8)))
    return graph.node("DequantizeLinear", inputs, name, axis=0)


def _write_silu(writer: _Writer, name: str, x: Tensor) -> Tensor:
    """Add x * sigmoid(x) as a lookup table of 256 values and a product."""
    graph = writer.graph
    gate = graph.node("Sigmoid", [x.values], f"{name}.sigmoid.float")
    gate = quantize(graph, gate, affine(0, 1)).values
    product = graph.node("Mul", [x.values, gate], f"{name}.float")
    return quantize(graph, product, writer.schemes[name])


def _write_hard_swish(writer: _Writer, name: str, x: Tensor) -> Tensor:
    """Add x * clip(x / 6 + 0.5, 0, 1): the second factor is the same uint8 number, clipped, with another scale.

    It saturates at 0 where x does, at -3.
    """
    graph, scheme = writer.graph, x.scheme
    assert scheme is not None
    top = min(2 * scheme.zero_point, LEVELS)
    clipped = x.quantized
    if top < LEVELS:
        least, most = (
            graph.constant(f"{name}.{what}", np.array(v, np.uint8)) for what, v in (("least", 0), ("most", top))
        )
        clipped = graph.node("Clip", [x.quantized, least, most], f"{name}.gate")
    gate = dequantize(graph, clipped, Affine(scheme.scale / (2 * HARD_LIMIT), 0), name=f"{name}.gate")
    product = graph.node("Mul", [x.values, gate.values], f"{name}.float")
    return quantize(graph, product, writer.schemes[name])
