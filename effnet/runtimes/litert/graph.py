"""Write a spec and its folded weights directly as a TFLite graph: milliseconds, no torch, no TensorFlow.

The graph takes uint8 images [batch, height, width, channels] under the name `image` and returns `probabilities` [batch,
classes] or, without a classifier, `features` [batch, channels]; with a decoder, the named outputs of `graph_outputs`.
Normalisation is inside. Tensors have the names of `named_layers`. Of several outputs, each has a linear layer of its
own with its columns, named as by `heads_of`: in int8 a feature map has one range, which would be too wide for the
smaller of unlike outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from effnet.arch.layers import (
    INPUT,
    Layer,
    Layers,
    Size,
    map_sizes,
    named_layers,
    parameter_keys,
    readers,
    same_padding,
)
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError
from effnet.runtimes.litert.decoded import add_decoded, add_joined
from effnet.runtimes.litert.flatbuffer import FUSED, Graph
from effnet.runtimes.maps import MAPS
from effnet.runtimes.onnxruntime.session import IMAGE
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.task import FEATURES, Output, names_in_file
from effnet.weights.folding import pixel_mean, scaled_stem

CENTRED = "normalise.centre"

_REDUCED = np.array([1, 2], np.int32)
# A hard sigmoid is relu6(x + 3) / 6.
_HARD = {"three": 3.0, "sixth": 1 / 6}

Pixels = Literal["uint8", "float32"]


def to_graph(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    pixels: Pixels = "uint8",
    answers: Sequence[Output] = (PROBABILITIES,),
    maps: bool = False,
) -> Any:
    """Return the ModelT of `spec` with folded `weights` (from fold_norms or random_weights).

    `mean` and `std` are per channel, of pixels scaled to 0..1. With `pixels` float32 the graph is one to be quantized:
    the images, 0..255, are float32, and functions are composed of operators that are fast in int8. `answers` are the
    outputs of the task, in the order of the last layer's columns; with `maps` there are activation maps too. Raises
    SpecError if mean does not match the spec's channels.
    """
    if len(mean) != spec.in_channels or len(std) != spec.in_channels:
        raise SpecError(f"mean and std need {spec.in_channels} values each; got {len(mean)} and {len(std)}")
    size, graph, layers = spec.size_at(resolution), Graph(), named_layers(spec)
    image = graph.tensor(IMAGE, (1, *size, spec.in_channels), pixels.upper())
    names = {INPUT: _add_normalisation(graph, image, mean)}
    fused, sizes, keys = _find_fused(layers), map_sizes(layers, size), parameter_keys(layers)
    for name, layer in layers:
        inputs = [names[source] for source in layer.inputs]
        match layer.op:
            case "norm":
                names[name] = inputs[0]  # folded into the convolution before it
            case "act" if layer.inputs[0] in fused:
                names[name] = inputs[0]
            case "act":
                names[name] = _add_function(graph, name, layer.function, inputs[0], composed=pixels == "float32")
            case "conv":
                key = keys[name]
                kernel = weights[f"{key}.weight"] if name != "stem.conv" else scaled_stem(weights, std)
                # In int8 a bias has the scale of its layer's input.
                constants = key if pixels == "uint8" else name, kernel, weights[f"{key}.bias"]
                names[name] = _add_conv(graph, name, layer, inputs[0], constants, sizes[name], spec, fused)
            case "linear":
                names |= _add_heads(graph, name, inputs[0], weights, answers)
            case "channel_conv":
                names[name] = _add_channel_conv(graph, name, inputs[0], weights[f"{name}.weight"])
            case "resize" | "concat" | "fuse":
                names[name] = add_joined(graph, name, layer, inputs, sizes[name], weights)
            case _:
                names[name] = _add_plain(graph, name, layer, inputs, sizes[name], fused.get(name, ""), spec)
    outputs = _add_outputs(graph, names, spec, answers)
    if maps:
        last = names[dict(layers)["pool"].inputs[0]]
        outputs.append(_add_maps(graph, last, weights["classifier.weight"], shared=pixels == "uint8"))
    return graph.model(description=f"effnet: {spec.name}", image=image, outputs=outputs)


def _add_heads(
    graph: Graph, layer: str, x: int, weights: Mapping[str, np.ndarray], answers: Sequence[Output]
) -> dict[str, int]:
    """Add a linear layer for each output, and return their tensors by name; see `heads_of`."""
    edges = np.cumsum([answer.width for answer in answers])[:-1]
    parts = (np.split(weights[f"{layer}.{part}"], edges) for part in ("weight", "bias"))
    named = zip(heads_of(layer, answers), *parts, strict=True)
    return {head: _add_linear(graph, head, x, constants) for head, *constants in named}


def _add_outputs(graph: Graph, names: Mapping[str, int], spec: ArchSpec, answers: Sequence[Output]) -> list[int]:
    """Add the function of each output, and return their tensors."""
    if spec.decoder is not None:
        return add_decoded(graph, names, spec)
    if not spec.num_classes:
        return [_as_features(graph, names["pool"])]
    called = zip(heads_of("classifier", answers), names_in_file(answers), answers, strict=True)
    return [_add_answer(graph, names[head], name, answer) for head, name, answer in called]


def _as_features(graph: Graph, pooled: int) -> int:
    """Return the tensor of the pooled features, named so."""
    graph.tensors[pooled].name = FEATURES.name
    return pooled


def heads_of(layer: str, answers: Sequence[Output]) -> list[str]:
    """Return the names of the linear layers that a graph of these outputs has for the last layer."""
    return [layer] if len(answers) == 1 else [f"{layer}.{number}" for number in range(len(answers))]


def _add_maps(graph: Graph, x: int, weight: np.ndarray, *, shared: bool) -> int:
    """Add the activation maps of the last feature map `x`; `shared` uses the bytes of the last layer's weights."""
    _, height, width, _ = graph.shape(x)
    kernel = weight[:, None, None, :]
    if shared and (stored := graph.find_constant("classifier.weight")) is not None:
        kernels = graph.tensor(f"{MAPS}.weight", kernel.shape, buffer=graph.tensors[stored].buffer)
    else:
        kernels = graph.constant(f"{MAPS}.weight", kernel)
    inputs = [x, kernels, graph.constant(f"{MAPS}.bias", np.zeros(len(weight), np.float32))]
    options = graph.options("Conv2D", padding=graph.schema.Padding.VALID, strideW=1, strideH=1)
    return graph.operator("CONV_2D", inputs, MAPS, (1, height, width, len(weight)), options)


def _add_answer(graph: Graph, x: int, name: str, answer: Output) -> int:
    """Add an output called `name`, a function of its columns `x` of the last layer."""
    shape = graph.shape(x)
    match answer.activation:
        case "softmax":
            return graph.operator("SOFTMAX", [x], name, shape, graph.options("Softmax", beta=1.0))
        case "sigmoid":
            return graph.operator("LOGISTIC", [x], name, shape)
    if (answer.mean, answer.scale) == (0, 1):
        graph.tensors[x].name = name
        return x
    scale, mean = (
        graph.constant(f"{name}.{what}", np.array([value], np.float32))
        for what, value in (("scale", answer.scale), ("mean", answer.mean))
    )
    scaled = graph.operator("MUL", [x, scale], scaled_name(name), shape, graph.options("Mul"))
    return graph.operator("ADD", [scaled, mean], name, shape, graph.options("Add"))


def scaled_name(name: str) -> str:
    """Return the name of the product within the number that the output `name` returns."""
    return f"{name}.scaled"


def _find_fused(layers: Layers) -> dict[str, str]:
    """Return the functions to fuse into the convolution or sum before them, by its name and by its BatchNorm's."""
    known, reading = dict(layers), readers(layers)
    fused = {}
    for _, layer in layers:
        source = layer.inputs[0]
        if layer.op == "act" and layer.function in FUSED and len(reading[source]) == 1:
            fused[source] = layer.function
            if known[source].op == "norm":
                fused[known[source].inputs[0]] = layer.function
    return fused


def _add_normalisation(graph: Graph, image: int, mean: Sequence[float]) -> int:
    """Centre the pixels; the division by the standard deviation is folded into the first convolution's weights."""
    shape, x = graph.shape(image), image
    if graph.tensors[image].type == graph.schema.TensorType.UINT8:
        x = graph.operator("CAST", [image], "normalise.cast", shape)
    centre = graph.constant("normalise.mean", pixel_mean(mean))
    return graph.operator("SUB", [x, centre], CENTRED, shape, graph.options("Sub"))


def _add_conv(
    graph: Graph,
    name: str,
    layer: Layer,
    x: int,
    constants: tuple[str, np.ndarray, np.ndarray],
    size: Size,
    spec: ArchSpec,
    fused: Mapping[str, str],
) -> int:
    """Add a convolution; `constants` are the name of its parameters, and these: layers may share them."""
    key, weight, bias = constants
    x, padding = _pad(graph, name, layer, x, symmetric=spec.padding == "symmetric")
    options = {
        "padding": padding,
        "strideW": layer.stride,
        "strideH": layer.stride,
        "fusedActivationFunction": graph.activation(fused.get(name, "")),
    }
    depthwise = layer.groups > 1
    # From out, in, height, width to out, height, width, in or, if depthwise, 1, height, width, out.
    kernel = weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    inputs = [x, graph.constant(f"{key}.weight", kernel), graph.constant(f"{key}.bias", bias)]
    shape = (1, *size, layer.out_channels)
    if depthwise:
        return graph.operator(
            "DEPTHWISE_CONV_2D", inputs, name, shape, graph.options("DepthwiseConv2D", depthMultiplier=1, **options)
        )
    return graph.operator("CONV_2D", inputs, name, shape, graph.options("Conv2D", **options))


def _pad(graph: Graph, name: str, layer: Layer, x: int, *, symmetric: bool, zeros: bool = True) -> tuple[int, int]:
    """Return the padded input and the rule for the remaining padding; without `zeros` the edge is mirrored.

    SAME is TensorFlow's rule; it pads symmetrically unless the side is not a multiple of the stride.
    """
    size, k, stride = graph.shape(x)[1:3], layer.kernel_size, layer.stride
    same, valid = graph.schema.Padding.SAME, graph.schema.Padding.VALID
    paddings, before = [same_padding(side, kernel_size=k, stride=stride) for side in size], k // 2
    if not symmetric or all(first == before for first, _ in paddings):
        return x, same
    # At the end, no more than the last window reads.
    pads = [(before, max(sum(padding) - before, 0)) for padding in paddings]
    shape = (1, *(side + sum(pad) for side, pad in zip(size, pads, strict=True)), layer.in_channels)
    table = graph.constant("pads." + ".".join(f"{a}.{b}" for a, b in pads), np.array([(0, 0), *pads, (0, 0)], np.int32))
    inputs = [x, table]
    if zeros:
        return graph.operator("PAD", inputs, f"{name}.pad", shape, graph.options("Pad")), valid
    # Mirroring changes no maximum, since each window that reads it holds the edge already; zeros could change one.
    return graph.operator("MIRROR_PAD", inputs, f"{name}.pad", shape, graph.options("MirrorPad", mode=1)), valid


def _add_linear(graph: Graph, name: str, x: int, constants: Sequence[np.ndarray]) -> int:
    parts = zip(("weight", "bias"), constants, strict=True)
    inputs = [x, *(graph.constant(f"{name}.{part}", array) for part, array in parts)]
    return graph.operator("FULLY_CONNECTED", inputs, name, (1, len(constants[1])), graph.options("FullyConnected"))


def _add_channel_conv(graph: Graph, name: str, x: int, kernel: np.ndarray) -> int:
    """Add a convolution along the channels of one pixel, which become the pixels of a row of one channel."""
    channels = graph.shape(x)[3]

    def reshaped(x: int, name: str, height: int, width: int, depth: int) -> int:
        shape = graph.constant(f"shape.{width}.{depth}", np.array([-1, height, width, depth], np.int32))
        options = graph.options("Reshape", newShape=[-1, height, width, depth])
        return graph.operator("RESHAPE", [x, shape], name, (1, height, width, depth), options)

    row = reshaped(x, f"{name}.row", 1, channels, 1)
    weight = graph.constant(f"{name}.weight", kernel.reshape(1, 1, -1, 1))
    inputs = [row, weight, graph.constant("no.bias", np.zeros(1, np.float32))]
    options = graph.options("Conv2D", padding=graph.schema.Padding.SAME, strideW=1, strideH=1)
    row = graph.operator("CONV_2D", inputs, f"{name}.mixed", (1, 1, channels, 1), options)
    return reshaped(row, name, 1, 1, channels)


def _add_plain(
    graph: Graph, name: str, layer: Layer, inputs: list[int], size: Size, function: str, spec: ArchSpec
) -> int:
    """Add an operation without weights."""
    shape = graph.shape(inputs[0])
    match layer.op:
        case "global_pool":
            last = name == "pool"  # its rows are the features; a squeeze outputs feature maps of one pixel
            wanted = (1, layer.out_channels) if last else (1, 1, 1, layer.out_channels)
            axes = graph.constant("pool.axes", _REDUCED)
            return graph.operator("MEAN", [inputs[0], axes], name, wanted, graph.options("Reducer", keepDims=not last))
        case "max_pool":
            symmetric, zeros = layer.function != "same", spec.activation in FUSED
            x, padding = _pad(graph, name, layer, inputs[0], symmetric=symmetric, zeros=zeros)
            k, stride = layer.kernel_size, layer.stride
            options = graph.options(
                "Pool2D", padding=padding, strideW=stride, strideH=stride, filterWidth=k, filterHeight=k
            )
            return graph.operator("MAX_POOL_2D", [x], name, (1, *size, layer.out_channels), options)
        case "add":
            options = graph.options("Add", fusedActivationFunction=graph.activation(function))
            return graph.operator("ADD", inputs, name, shape, options)
    return graph.operator("MUL", inputs, name, shape, graph.options("Mul"))


def _add_function(graph: Graph, name: str, function: str, x: int, *, composed: bool) -> int:
    """Add a function; `composed` from operators with fast int8 kernels, which HARD_SWISH lacks."""
    shape = graph.shape(x)
    match function:
        case "relu" | "relu6":  # if another layer reads its input too, so that it cannot be fused
            return graph.operator(function.upper(), [x], name, shape)
        case "sigmoid":
            return graph.operator("LOGISTIC", [x], name, shape)
        case "silu":
            gate = graph.operator("LOGISTIC", [x], f"{name}.sigmoid", shape)
            return graph.operator("MUL", [x, gate], name, shape, graph.options("Mul"))
        case "hard_sigmoid":
            return _add_hard_sigmoid(graph, name, x)
        case "hard_swish" if composed:
            gate = _add_hard_sigmoid(graph, f"{name}.gate", x)
            return graph.operator("MUL", [x, gate], name, shape, graph.options("Mul"))
        case "hard_swish":
            return graph.operator("HARD_SWISH", [x], name, shape, graph.options("HardSwish"))
    raise SpecError(f"LiteRT has no {function}")


def _add_hard_sigmoid(graph: Graph, name: str, x: int) -> int:
    three, sixth = (graph.constant(key, np.array([value], np.float32)) for key, value in _HARD.items())
    inside = graph.options("Add", fusedActivationFunction=graph.activation("relu6"))
    shifted = graph.operator("ADD", [x, three], f"{name}.shift", graph.shape(x), inside)
    return graph.operator("MUL", [shifted, sixth], name, graph.shape(x), graph.options("Mul"))
