"""Bias correction: biases that undo the shift of each channel's mean caused by int8 weights.

Source: M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2,
with means from images.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.arch.layers import INPUT, Size, map_sizes, named_layers
from effnet.arch.spec import ArchSpec
from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.graph import add_layer, expose, pads_of, to_onnx
from effnet.runtimes.onnxruntime.int8_graph import levels_here, quantize_weight, to_probe
from effnet.runtimes.onnxruntime.int8_ranges import Ranges
from effnet.runtimes.onnxruntime.session import IMAGE, open_bytes
from effnet.runtimes.pipeline import Progress
from effnet.weights.folding import Arrays, own_weights, scaled_stem

if TYPE_CHECKING:
    import onnx

_BATCH = 8


def correct_fast(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    float_layers: Sequence[str] = (),
    threads: int = 0,
) -> Arrays:
    """Return `weights` with biases that compensate for quantizing each layer's own weights, in one pass over `images`.

    A layer's error is its convolution with the weights' rounding errors, on the inputs of the fp32 network.
    """
    weights = own_weights(spec, weights)
    model = to_onnx(spec, weights, mean=mean, std=std, resolution=resolution)
    errors = _add_errors(model, spec, weights, std, spec.size_at(resolution), float_layers)
    found = _means(expose(model, [f"error.{name}" for name in errors]), images, threads)
    corrected = dict(weights)
    for name, error in zip(errors, found, strict=True):
        corrected[f"{name}.bias"] = (weights[f"{name}.bias"] - error).astype(np.float32)
    return corrected


def _add_errors(
    model: "onnx.ModelProto",
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    std: Sequence[float],
    size: Size,
    float_layers: Sequence[str],
) -> list[str]:
    """Add each layer's mean error per image to the fp32 network as `error.NAME`, and return the names."""
    import onnx

    graph, sizes, levels = Graph(onnx), map_sizes(named_layers(spec), size), levels_here()
    names, layers = {INPUT: "normalise.nchw"}, []
    for name, layer in named_layers(spec):
        names[name] = names[layer.inputs[0]] if layer.op == "norm" else name
        if layer.op not in ("conv", "linear") or name in float_layers:
            continue
        weight = scaled_stem(weights, std) if name == "stem.conv" else weights[f"{name}.weight"]
        quantized, scales = quantize_weight(weight, levels=levels)
        changed = quantized * scales.reshape((-1,) + (1,) * (weight.ndim - 1)) - weight
        inputs = [names[layer.inputs[0]]]
        parameters = [
            graph.constant(f"error.{name}.weight", changed.astype(np.float32)),
            graph.constant(f"error.{name}.bias", np.zeros(len(weight), np.float32)),
        ]
        pads = pads_of(layer, sizes, spec)
        output = f"error.{name}" if layer.op == "linear" else f"error.{name}.map"
        x = add_layer(graph, f"error.{name}", layer, inputs, parameters, pads=pads, output=output)
        if layer.op == "conv":
            pooled = graph.node("GlobalAveragePool", [x], f"error.{name}.pool")
            graph.node("Flatten", [pooled], f"error.{name}", axis=1)
        layers.append(name)
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    return layers


def correct_full(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    ranges: Ranges,
    images: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    float_layers: Sequence[str] = (),
    threads: int = 0,
    progress: Progress | None = None,
) -> Arrays:
    """Return `weights` with biases that give each layer the mean outputs of the fp32 network.

    Layers are corrected in order, each on the inputs from the int8 network as corrected so far, so that it sees the
    errors of all earlier layers. `progress` is called with the layers done and their total.
    """
    given: dict[str, Any] = {"mean": mean, "std": std, "resolution": resolution}
    weights = own_weights(spec, weights)
    layers = [name for name, layer in named_layers(spec) if layer.op in ("conv", "linear") and name not in float_layers]
    model = to_onnx(spec, weights, **given)
    _add_means(model, layers)
    found = _means(expose(model, [f"mean.{name}" for name in layers]), images, threads)
    wanted = dict(zip(layers, found, strict=True))
    corrected = dict(weights)
    for done, name in enumerate(layers, 1):
        probe = to_probe(spec, corrected, ranges, name, float_layers=float_layers, **given)
        (mean_now,) = _means(probe, images, threads)
        corrected[f"{name}.bias"] = (corrected[f"{name}.bias"] + wanted[name] - mean_now).astype(np.float32)
        if progress:
            progress(done, len(layers))
    return corrected


def _add_means(model: "onnx.ModelProto", layers: Sequence[str]) -> None:
    """Add each layer's mean output per image to the fp32 network as `mean.NAME`."""
    import onnx

    graph = Graph(onnx)
    for name in layers:
        pooled = name if name == "classifier" else graph.node("GlobalAveragePool", [name], f"mean.{name}.pool")
        graph.node("Flatten", [pooled], f"mean.{name}", axis=1)
    model.graph.node.extend(graph.nodes)


def _means(model: bytes, images: np.ndarray, threads: int) -> list[np.ndarray]:
    """Return the mean over `images` of every output [batch, channels]."""
    session = open_bytes(model, threads=threads)
    sums: list[np.ndarray] = []
    for start in range(0, len(images), _BATCH):
        found = [
            output.astype(np.float64).sum(0) for output in session.run(None, {IMAGE: images[start : start + _BATCH]})
        ]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return [total / len(images) for total in sums]
