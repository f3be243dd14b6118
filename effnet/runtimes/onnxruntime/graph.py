"""Write a spec and its folded weights directly as an ONNX graph: milliseconds, no torch.

The graph takes uint8 images [batch, height, width, channels] under the name `image` and returns
the outputs of its task, `probabilities` [batch, classes] for a classifier, or `features` [batch, channels] without a
last layer; normalisation is inside, paddings are static.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.arch.layers import INPUT, Layer, Size, map_sizes, named_layers, parameter_keys, same_padding
from effnet.arch.spec import ArchSpec
from effnet.errors import MissingExtraError, SpecError
from effnet.runtimes.maps import MAPS
from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.decoded import add_decoded, add_fusion, add_resize
from effnet.runtimes.onnxruntime.session import IMAGE
from effnet.system.files import written_whole
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.task import FEATURES, Output, names_in_file
from effnet.weights.folding import pixel_mean, scaled_stem

if TYPE_CHECKING:
    import onnx

# 17 has every operator used here and is supported by runtimes since 2022.
OPSET = 17
IR_VERSION = 8


Parameter = Callable[[Graph, str, np.ndarray], str]
"""Store an array under a name in a graph and return the name of its fp32 values there."""


def to_onnx(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    metadata: Mapping[str, str] | None = None,
    parameter: "Parameter | None" = None,
    answers: Sequence[Output] = (PROBABILITIES,),
    maps: bool = False,
) -> "onnx.ModelProto":
    """Return the ONNX model of `spec` with folded `weights` (from fold_norms or random_weights).

    `mean` and `std` are per channel, of pixels scaled to 0..1. The batch size is dynamic, the image's side is fixed to
    `resolution`. `parameter` stores a weight or bias; by default as fp32. `answers` are the outputs of the task, in the
    order of the last layer's columns; with `maps` there are activation maps too. Raises SpecError if mean does not
    match the spec's channels.
    """
    graph, size = start_graph(spec, mean, std, resolution)
    names = {INPUT: add_normalisation(graph, mean)}
    layers = named_layers(spec)
    sizes, keys = map_sizes(layers, size), parameter_keys(layers)
    store = _stored_once(parameter or Graph.constant)
    for name, layer in layers:
        parameters: tuple[str, ...] = ()
        if layer.op == "channel_conv":
            parameters = (store(graph, f"{name}.weight", weights[f"{name}.weight"]),)
        elif layer.op == "fuse":
            factors = enumerate(weights[f"{name}.weight"])
            parameters = tuple(graph.constant(f"{name}.weight{number}", factor) for number, factor in factors)
        elif layer.op in ("conv", "linear"):
            key = keys[name]
            kernel = weights[f"{key}.weight"] if name != "stem.conv" else scaled_stem(weights, std)
            parameters = (store(graph, f"{key}.weight", kernel), store(graph, f"{key}.bias", weights[f"{key}.bias"]))
        inputs = [names[source] for source in layer.inputs]
        names[name] = add_layer(graph, name, layer, inputs, parameters, pads=pads_of(layer, sizes, spec), sizes=sizes)
    outputs = add_outputs(graph, names, spec, answers, sizes)
    if maps:
        outputs |= add_maps(graph, names, spec, sizes)
    return finish_graph(graph, outputs, spec, size, metadata or {})


def _stored_once(store: Parameter) -> Parameter:
    """Return a function that stores an array as `store` does, the first time; layers may share parameters."""
    known: dict[str, str] = {}

    def stored(graph: Graph, name: str, array: np.ndarray) -> str:
        if name not in known:
            known[name] = store(graph, name, array)
        return known[name]

    return stored


def start_graph(
    spec: ArchSpec, mean: Sequence[float], std: Sequence[float], resolution: int | None
) -> tuple[Graph, Size]:
    """Return an empty graph and the size of its images; raise SpecError if these do not match `spec`."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "train") from error
    if len(mean) != spec.in_channels or len(std) != spec.in_channels:
        raise SpecError(f"mean and std need {spec.in_channels} values each; got {len(mean)} and {len(std)}")
    return Graph(onnx), spec.size_at(resolution)


def add_normalisation(graph: Graph, mean: Sequence[float]) -> str:
    """Centre the pixels; the division by the standard deviation is folded into the first convolution's weights."""
    centre = graph.constant("normalise.mean", pixel_mean(mean))
    x = graph.node("Cast", [IMAGE], "normalise.cast", to=1)
    x = graph.node("Sub", [x, centre], "normalise.centre")
    return graph.node("Transpose", [x], "normalise.nchw", perm=[0, 3, 1, 2])


def add_layer(
    graph: Graph,
    name: str,
    layer: Layer,
    inputs: Sequence[str],
    parameters: Sequence[str] = (),
    *,
    pads: Sequence[int] = (),
    sizes: Mapping[str, Size] | None = None,
    output: str | None = None,
) -> str:
    """Add a layer that reads `inputs` and writes `output` (by default `name`); return the output's name.

    `parameters` are weight and bias of a convolution or linear layer, the kernel of a convolution over channels, and
    the factors of a fusion; `pads` (of pads_of) is the padding of the feature maps, and `sizes` are the sizes of all.
    """
    output = output or name
    window = {"kernel_shape": [layer.kernel_size] * 2, "strides": [layer.stride] * 2}
    match layer.op:
        case "conv":
            return graph.node("Conv", [*inputs, *parameters], output, **window, pads=pads, group=layer.groups)
        case "linear":
            flat = graph.node("Flatten", inputs, f"{name}.flatten", axis=1)
            return graph.node("Gemm", [flat, *parameters], output, transB=1)
        case "act":
            return add_function(graph, output, layer.function, inputs[0])
        case "global_pool":
            return graph.node("GlobalAveragePool", inputs, output)
        case "max_pool":
            return graph.node("MaxPool", inputs, output, **window, pads=pads)
        case "mul" | "add":
            return graph.node(layer.op.capitalize(), inputs, output)
        case "channel_conv":
            return _add_channel_conv(graph, name, layer, [*inputs, *parameters], output)
        case "resize":
            assert sizes is not None
            return add_resize(graph, inputs[0], output, sizes[layer.inputs[0]], sizes[name])
        case "concat":
            return graph.node("Concat", inputs, output, axis=1)
        case "fuse":
            return add_fusion(graph, inputs, parameters, output)
    return inputs[0]  # BatchNorm is folded into the convolution before it


def _add_channel_conv(graph: Graph, name: str, layer: Layer, inputs: Sequence[str], output: str) -> str:
    """Add a convolution along the channels of [batch, channels, 1, 1], which becomes a row [batch, 1, channels]."""
    x, kernel = inputs
    row = graph.node("Reshape", [x, graph.shared("row.shape", np.array([0, 1, -1], np.int64))], f"{name}.row")
    k = layer.kernel_size
    row = graph.node("Conv", [row, kernel], f"{name}.mixed", kernel_shape=[k], pads=[k // 2] * 2)
    return graph.node("Reshape", [row, graph.shared("map.shape", np.array([0, -1, 1, 1], np.int64))], output)


def pads_of(layer: Layer, sizes: Mapping[str, Size], spec: ArchSpec) -> list[int]:
    """Return the static padding of a convolution or pooling: top, left, bottom, right."""
    same = layer.function == "same" if layer.op == "max_pool" else spec.padding == "same"
    if not same or layer.stride == 1:
        return [layer.kernel_size // 2] * 4
    (top, bottom), (left, right) = (
        same_padding(side, kernel_size=layer.kernel_size, stride=layer.stride) for side in sizes[layer.inputs[0]]
    )
    return [top, left, bottom, right]


def add_function(graph: Graph, name: str, function: str, x: str) -> str:
    """Add an activation or a gate."""
    match function:
        case "silu":
            return graph.node("Mul", [x, graph.node("Sigmoid", [x], f"{name}.sigmoid")], name)
        case "relu6":
            ends = [graph.shared(end, np.array(value, np.float32)) for end, value in (("zero", 0), ("six", 6))]
            return graph.node("Clip", [x, *ends], name)
        case "hard_sigmoid":
            return graph.node("HardSigmoid", [x], name, alpha=1 / 6, beta=0.5)
    return graph.node({"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid"}[function], [x], name)


def add_outputs(
    graph: Graph, names: Mapping[str, str], spec: ArchSpec, answers: Sequence[Output], sizes: Mapping[str, Size]
) -> dict[str, list[int | str]]:
    """Add the network's outputs, functions of the last layers in `names`, and return the shape of each by its name."""
    if spec.decoder is not None:
        return add_decoded(graph, names, spec, sizes)
    if not spec.num_classes:
        return {graph.node("Flatten", [names["pool"]], FEATURES.name, axis=1): ["batch", spec.feature_channels]}
    last = names["classifier"]
    parts = [last] if len(answers) == 1 else graph.split(last, [answer.width for answer in answers])
    found: dict[str, list[int | str]] = {}
    for part, name, answer in zip(parts, names_in_file(answers), answers, strict=True):
        found[_add_answer(graph, part, name, answer)] = ["batch", answer.width or spec.num_classes]
    return found


def add_maps(
    graph: Graph, names: Mapping[str, str], spec: ArchSpec, sizes: Mapping[str, Size]
) -> dict[str, list[int | str]]:
    """Add the activation maps of the last feature map in `names`, and return their shape by their name.

    They share the last layer's weights; MatMul takes the places of an image as the columns of a matrix.
    """
    last = dict(named_layers(spec))["pool"].inputs[0]
    (height, width), columns = sizes[last], spec.num_classes
    flat = graph.constant(f"{MAPS}.places", np.array([0, spec.feature_channels, height * width], np.int64))
    square = graph.constant(f"{MAPS}.square", np.array([0, columns, height, width], np.int64))
    x = graph.node("Reshape", [names[last], flat], f"{MAPS}.flat")
    x = graph.node("MatMul", ["classifier.weight", x], f"{MAPS}.product")
    return {graph.node("Reshape", [x, square], MAPS): ["batch", columns, height, width]}


def _add_answer(graph: Graph, x: str, name: str, answer: Output) -> str:
    """Add an output called `name`, a function of its columns `x` of the last layer."""
    match answer.activation:
        case "softmax":
            return graph.node("Softmax", [x], name, axis=1)
        case "sigmoid":
            return graph.node("Sigmoid", [x], name)
    if (answer.mean, answer.scale) == (0, 1):
        return graph.node("Identity", [x], name)
    scale, mean = (
        graph.constant(f"{x}.{what}", np.array(value, np.float32))
        for what, value in (("scale", answer.scale), ("mean", answer.mean))
    )
    return graph.node("Add", [graph.node("Mul", [x, scale], f"{x}.scaled"), mean], name)


def finish_graph(
    graph: Graph, outputs: Mapping[str, Sequence[int | str]], spec: ArchSpec, size: Size, metadata: Mapping[str, str]
) -> "onnx.ModelProto":
    """Return the model that maps images to `outputs`, shapes by name."""
    onnx = graph.onnx
    image = onnx.helper.make_tensor_value_info(IMAGE, onnx.TensorProto.UINT8, ["batch", *size, spec.in_channels])
    declared = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()
    ]
    # The runtime's "effnet" graph name is free text; names with odd characters are not portable.
    body = onnx.helper.make_graph(graph.nodes, "effnet", [image], declared, graph.constants)
    model = onnx.helper.make_model(
        body,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="effnet",
    )
    maps = {MAPS: json.dumps(outputs[MAPS])} if MAPS in outputs else {}
    onnx.helper.set_model_props(model, {**metadata, **maps})
    return model


def expose(model: "onnx.ModelProto", outputs: Sequence[str]) -> bytes:
    """Return the file of `model` with these tensors of the graph as its outputs, in this order."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    return whole.SerializeToString()


def write_onnx(model: "onnx.ModelProto", path: Path, *, durable: bool = True) -> None:
    """Write `model` to `path` whole or not at all; a temporary file need not be `durable`."""
    with written_whole(path, durable=durable) as beside:
        beside.write_bytes(model.SerializeToString(deterministic=True))
