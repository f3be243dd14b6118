"""Write a spec and its folded weights as an int8 TFLite file: effnet's calibration, quantization by ai-edge-quantizer.

Weights are quantized per output channel, activations per tensor and asymmetrically; images are uint8 and probabilities
floats: an int8 softmax could not represent a probability below 1/256.
"""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.arch.layers import named_layers
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError, MissingExtraError, nearest
from effnet.runtimes.litert.decoded import answers_of, float_outputs
from effnet.runtimes.litert.flatbuffer import load_schema, operator_code, serialise
from effnet.runtimes.litert.graph import CENTRED, heads_of, scaled_name, to_graph
from effnet.runtimes.litert.int8_ranges import Progress, Range, observe, quiet, widen
from effnet.runtimes.litert.metadata import finish
from effnet.runtimes.maps import MAPS
from effnet.runtimes.onnxruntime.session import IMAGE
from effnet.runtimes.write import Quantization
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.task import FEATURES, Output, names_in_file
from effnet.weights.folding import random_weights

# Ranges barely change after this many images.
MOST_IMAGES = 256
_STEPS, _LARGEST = 255, 127
# An int8 convolution sums in int32; the largest share of that range for a bias, the rest is for the products.
_MOST = 2**30
_RANDOM_IMAGES = 2


def to_int8(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    images: np.ndarray,
    quantization: Quantization,
    resolution: int | None = None,
    class_names: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    answers: Sequence[Output] = (PROBABILITIES,),
    maps: bool = False,
    progress: Progress | None = None,
) -> bytes:
    """Return the int8 TFLite file of `spec`; shared arguments are as in to_tflite.

    `images`, uint8 [images, R, R, C], calibrate the activations; at most 256 are used. `progress` is called with the
    images done and their total. Raises InputError for entropy calibration, full bias correction and unknown float
    layers, MissingExtraError without ai-edge-quantizer.
    """
    _check(spec, quantization)
    quantizer = _load_quantizer()
    given: dict[str, Any] = {"mean": mean, "std": std, "resolution": resolution, "answers": answers, "maps": maps}
    model = to_graph(spec, weights, pixels="float32", **given)
    layers = _find_weighted(model)
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).round().astype(int)]
    sources = {layer.source for layer in layers}
    ranges, means = observe(model, chosen, method=quantization.method, sources=sources, progress=progress)
    ranges = widen(model, ranges)
    kept = (*_float_tensors(spec, quantization.float_layers, answers), *([MAPS] if maps else []))
    if quantization.bias_correction == "fast":
        _correct_biases(layers, means, skip=kept)
    _raise_weights(layers, ranges)
    for layer in layers:
        layer.store()
    outputs = answers_of(spec, answers) if spec.num_classes else (FEATURES,)
    rounded = _quantize(quantizer, serialise(model), ranges, float_layers=(*names_in_file(outputs), *kept))
    return finish(
        _take_bytes(rounded),
        name=spec.name,
        class_names=class_names,
        details=metadata or {},
        answers=outputs,
        maps=maps,
    )


def random_int8(spec: ArchSpec, *, resolution: int | None = None, seed: int = 0) -> bytes:
    """Return an int8 file of `spec` with random weights, for timing it before training; takes under a second.

    Its ranges are those of two random images; its probabilities mean nothing.
    """
    shape = (_RANDOM_IMAGES, *spec.size_at(resolution), spec.in_channels)
    return to_int8(
        spec,
        random_weights(spec, seed=seed),
        mean=(0.5,) * spec.in_channels,
        std=(0.25,) * spec.in_channels,
        images=np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8),
        quantization=Quantization(bias_correction="none"),
        resolution=resolution,
    )


def _check(spec: ArchSpec, quantization: Quantization) -> None:
    if quantization.method == "entropy":
        raise InputError("LiteRT's int8 is calibrated by minmax or percentile; got entropy")
    if quantization.bias_correction == "full":
        raise InputError("LiteRT's int8 corrects biases fast or not at all (none); got full")
    known = [name for name, layer in named_layers(spec) if layer.op in ("conv", "linear")]
    for name in quantization.float_layers:
        if name not in known:
            raise InputError(f"float_layers must be convolutions or linear layers; got {name!r}{nearest(name, known)}")


def _float_tensors(spec: ArchSpec, float_layers: Sequence[str], answers: Sequence[Output]) -> tuple[str, ...]:
    """Return the outputs of the operators that stay float: those of `float_layers`, and all that computes a number."""
    if spec.decoder is not None:
        return (*float_layers, *float_outputs(spec))
    kept = [name for layer in float_layers for name in (heads_of(layer, answers) if layer == "classifier" else [layer])]
    for head, name, answer in zip(heads_of("classifier", answers), names_in_file(answers), answers, strict=True):
        if answer.activation == "none":
            kept += [head, scaled_name(name), name]
    return tuple(dict.fromkeys(kept))


def _load_quantizer() -> Any:
    """Import ai-edge-quantizer; raise MissingExtraError if it is not installed."""
    try:
        from ai_edge_quantizer import quantizer
    except ImportError as error:
        raise MissingExtraError("ai-edge-quantizer", "litert") from error
    return quantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighted:
    """A convolution or linear layer of a graph: `kernel` has its output channels first, and is a copy."""

    name: str
    source: str
    kernel: np.ndarray
    bias: np.ndarray
    depthwise: bool
    kernel_buffer: Any
    bias_buffer: Any

    def store(self) -> None:
        """Write kernel and bias back into the graph."""
        kernel = np.moveaxis(self.kernel, 0, -1)[None] if self.depthwise else self.kernel
        self.kernel_buffer.data = np.frombuffer(np.ascontiguousarray(kernel).tobytes(), np.uint8)
        self.bias_buffer.data = np.frombuffer(self.bias.tobytes(), np.uint8)


def _find_weighted(model: Any) -> list[_Weighted]:
    graph, operators = model.subgraphs[0], load_schema().BuiltinOperator
    codes = [code.builtinCode for code in model.operatorCodes]
    found = []
    for operator in graph.operators:
        code = codes[operator.opcodeIndex]
        if code not in (operators.CONV_2D, operators.DEPTHWISE_CONV_2D, operators.FULLY_CONNECTED):
            continue
        source, kernel, bias = (graph.tensors[index] for index in operator.inputs)
        buffers = [model.buffers[tensor.buffer] for tensor in (kernel, bias)]
        arrays = [
            np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape).copy()
            for tensor, buffer in zip((kernel, bias), buffers, strict=True)
        ]
        depthwise = code == operators.DEPTHWISE_CONV_2D
        found.append(
            _Weighted(
                name=graph.tensors[operator.outputs[0]].name,
                source=source.name,
                kernel=np.moveaxis(arrays[0][0], -1, 0).copy() if depthwise else arrays[0],
                bias=arrays[1],
                depthwise=depthwise,
                kernel_buffer=buffers[0],
                bias_buffer=buffers[1],
            )
        )
    return found


def _correct_biases(layers: Sequence[_Weighted], means: Mapping[str, np.ndarray], *, skip: Sequence[str]) -> None:
    """Add to each bias the shift of the layer's mean output that quantizing its weights causes.

    Source: Nagel et al. 2019, Data-Free Quantization, section 4.2, with means measured on images.
    """
    for layer in layers:
        if layer.name in skip:
            continue
        axes = tuple(range(1, layer.kernel.ndim))
        steps = np.abs(layer.kernel).max(axes, keepdims=True).astype(np.float64) / _LARGEST
        steps[steps == 0] = 1
        lost = layer.kernel - np.rint(layer.kernel / steps) * steps
        mean = means[layer.source]
        taken = lost.sum(axes) * mean if layer.depthwise else lost.reshape(len(lost), -1, lost.shape[-1]).sum(1) @ mean
        layer.bias[:] += taken


def _raise_weights(layers: Sequence[_Weighted], ranges: Mapping[str, Range]) -> None:
    """Raise the first weight of channels whose weights are so small that their int32 bias and sums would overflow.

    A bias is quantized with the weight's step times the input's, and a sum is scaled by this product over the output's
    step. The output changes by less than 4e-5 of the bias and of its own step.
    """
    for layer in layers:
        source, output = ((high - low) / _STEPS for low, high in (ranges[layer.source], ranges[layer.name]))
        least = _LARGEST / _MOST * np.maximum(np.abs(layer.bias), output) / source
        rows = layer.kernel.reshape(len(layer.kernel), -1)  # a view
        small = np.abs(rows).max(1) < least
        rows[small, 0] = least[small]


def _quantize(module: Any, model: bytes, ranges: Mapping[str, Range], *, float_layers: Sequence[str]) -> bytes:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    quantizer = module.Quantizer(model)
    every = TFLOperationName.ALL_SUPPORTED
    quantizer.add_static_config(".*", every, activation_num_bits=8, weight_num_bits=8)
    # Operators are matched by the names of their outputs, each followed by a semicolon.
    floats = [*float_layers, *([CENTRED] if "stem.conv" in float_layers else [])]
    for name in floats:
        quantizer.update_quantization_recipe(f"^{re.escape(name)};", every, algorithm_key=AlgorithmName.NO_QUANTIZE)
    seen = {name: {"min": np.float32(low), "max": np.float32(high)} for name, (low, high) in ranges.items()}
    # One of its progress bars cannot be turned off.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        found = quantizer.quantize(seen, enable_progress_bar=False, enable_progress_report=False)
    return bytes(found.quantized_model)


def _take_bytes(data: bytes) -> Any:
    """Return the quantizer's file as a ModelT that takes uint8 images, like every file of effnet."""
    schema = load_schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for buffer in model.buffers:
        if buffer.size:  # it is stored after the graph
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
    graph = model.subgraphs[0]
    (index,) = graph.inputs
    inside = graph.tensors[index]
    inside.name = f"{IMAGE}.int8"
    image = schema.TensorT(name=IMAGE, shape=inside.shape, shapeSignature=inside.shapeSignature, hasRank=True)
    image.type = schema.TensorType.UINT8
    image.quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    graph.tensors.append(image)
    outer = len(graph.tensors) - 1
    model.operatorCodes.append(operator_code(schema, "QUANTIZE", version=2))
    first = schema.OperatorT(opcodeIndex=len(model.operatorCodes) - 1, inputs=[outer], outputs=[index])
    graph.operators.insert(0, first)
    graph.inputs = [outer]
    model.signatureDefs[0].inputs[0].tensorIndex = outer
    return model
