"""A spec and its folded weights, written straight as a TFLite graph: milliseconds, no torch, no TensorFlow.

The graph takes uint8 pictures [batch, height, width, channels] under the name `image` and returns
`probabilities` [batch, classes] or, without a classifier, `features` [batch, channels]; normalisation is inside.
Tensors bear the names of `named_layers`.
"""

import copy
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from effnet.arch.layers import INPUT, Layer, Layers, named_layers, output_side
from effnet.arch.spec import ArchSpec
from effnet.errors import MissingExtraError, SpecError
from effnet.runtime.session import FEATURES, IMAGE, PROBABILITIES

SIGNATURE = "serving_default"
CENTRED = "normalise.centre"

# Schema 3 is the only one that runtimes since 2018 read.
_SCHEMA_VERSION = 3
# Vectorised kernels read constants where they lie in the file.
_ALIGNMENT = 16
_FUSED = {"relu": "RELU", "relu6": "RELU6"}
_REDUCED = np.array([1, 2], np.int32)

Pixels = Literal["uint8", "float32"]


def load_schema() -> ModuleType:
    """Imports the classes of the format's schema; raises MissingExtraError without ai-edge-litert."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "litert") from error
    return schema_py_generated


class Graph:
    """The tensors and operators of a graph under construction; a tensor is known by its index."""

    def __init__(self) -> None:
        self.schema: Any = load_schema()
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[str] = []
        self.buffers: list[bytes] = [b""]  # by convention the first is empty, for tensors without constants
        self._constants: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int], kind: str = "FLOAT32", *, buffer: int = 0) -> int:
        """Adds a tensor; without a buffer it is one of the batch, whose first dimension is free."""
        found = self.schema.TensorT()
        found.name, found.shape, found.buffer, found.hasRank = name, list(shape), buffer, True
        found.type = getattr(self.schema.TensorType, kind)
        if not buffer:
            found.shapeSignature = [-1, *shape[1:]]
        self.tensors.append(found)
        return len(self.tensors) - 1

    def constant(self, name: str, array: np.ndarray) -> int:
        """Adds a constant; the same name stands for the same constant."""
        if name not in self._constants:
            self.buffers.append(np.ascontiguousarray(array).tobytes())
            kind = {"float32": "FLOAT32", "int32": "INT32"}[array.dtype.name]
            self._constants[name] = self.tensor(name, array.shape, kind, buffer=len(self.buffers) - 1)
        return self._constants[name]

    def operator(self, op: str, inputs: Sequence[int], name: str, shape: Sequence[int], options: Any = None) -> int:
        """Adds an operator with one output called `name`, and returns the output."""
        if op not in self.codes:
            self.codes.append(op)
        found = self.schema.OperatorT()
        found.opcodeIndex, found.inputs = self.codes.index(op), list(inputs)
        found.outputs = [self.tensor(name, shape)]
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            found.builtinOptionsType, found.builtinOptions = getattr(self.schema.BuiltinOptions, kind), options
        self.operators.append(found)
        return found.outputs[0]

    def shape(self, tensor: int) -> list[int]:
        return self.tensors[tensor].shape

    def options(self, kind: str, **fields: Any) -> Any:
        """Returns the options of an operator, such as Conv2DOptions; fields that it lacks are an error."""
        return getattr(self.schema, f"{kind}OptionsT")(**fields)

    def activation(self, function: str) -> int:
        """Returns the code of a function that an operator has inside; none for ""."""
        return getattr(self.schema.ActivationFunctionType, _FUSED.get(function, "NONE"))

    def model(self, *, description: str, image: int, output: int) -> Any:
        """Returns the whole as a ModelT, with one signature from `image` to `output`."""
        schema = self.schema
        graph = schema.SubGraphT(
            tensors=self.tensors, inputs=[image], outputs=[output], operators=self.operators, name="main"
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name=IMAGE, tensorIndex=image)],
            outputs=[schema.TensorMapT(name=self.tensors[output].name, tensorIndex=output)],
            signatureKey=SIGNATURE,
        )
        return schema.ModelT(
            version=_SCHEMA_VERSION,
            description=description,
            operatorCodes=[operator_code(schema, op) for op in self.codes],
            subgraphs=[graph],
            buffers=[schema.BufferT(data=np.frombuffer(data, np.uint8)) for data in self.buffers],
            signatureDefs=[signature],
        )


def operator_code(schema: Any, op: str, *, version: int = 1) -> Any:
    """Returns the entry of an operator in a model's list of those that it needs."""
    code = getattr(schema.BuiltinOperator, op)
    # Readers older than the wide field look at the narrow one, which has no room for codes above 127.
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)


def to_graph(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    pixels: Pixels = "uint8",
) -> Any:
    """Returns the ModelT of `spec` with folded `weights` (from fold_norms or random_weights).

    `mean` and `std` are per channel, of pixels scaled to 0..1. With `pixels` float32 the pictures, 0..255, are expected
    as 32-bit floats, as the quantizer wants its input. Raises SpecError where mean does not match the spec's channels.
    """
    if len(mean) != spec.in_channels or len(std) != spec.in_channels:
        raise SpecError(f"mean and std need {spec.in_channels} values each; got {len(mean)} and {len(std)}")
    side = spec.resolution if resolution is None else resolution
    if side < 1:
        raise SpecError(f"resolution must be at least 1 pixel; got {side}")
    graph = Graph()
    layers = named_layers(spec)
    image = graph.tensor(IMAGE, (1, side, side, spec.in_channels), pixels.upper())
    names = {INPUT: _add_normalisation(graph, image, mean)}
    fused = _find_fused(layers)
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    for name, layer in layers:
        inputs = [names[source] for source in layer.inputs]
        match layer.op:
            case "norm":
                names[name] = inputs[0]  # folded into the convolution before it
            case "act" if layer.inputs[0] in fused:
                names[name] = inputs[0]
            case "act":
                names[name] = _add_function(graph, name, layer.function, inputs[0])
            case "conv":
                kernel = weights[f"{name}.weight"]
                if name == "stem.conv":
                    kernel = (kernel * scale[None, :, None, None]).astype(np.float32)
                constants = kernel, weights[f"{name}.bias"]
                names[name] = _add_conv(graph, name, layer, inputs[0], constants, spec, fused.get(name, ""))
            case "linear":
                constants = weights[f"{name}.weight"], weights[f"{name}.bias"]
                names[name] = _add_linear(graph, name, inputs[0], constants)
            case _:
                names[name] = _add_plain(graph, name, layer, inputs, fused.get(name, ""))
    if spec.num_classes:
        options = graph.options("Softmax", beta=1.0)
        output = graph.operator("SOFTMAX", [names["classifier"]], PROBABILITIES, (1, spec.num_classes), options)
    else:
        output = names["pool"]
        graph.tensors[output].name = FEATURES
    return graph.model(description=f"effnet: {spec.name}", image=image, output=output)


def _find_fused(layers: Layers) -> dict[str, str]:
    """Returns the functions that run inside the convolution or sum before them, by its name and by its norm's."""
    known = dict(layers)
    fused = {}
    for _, layer in layers:
        if layer.op == "act" and layer.function in _FUSED:
            source = layer.inputs[0]
            fused[source] = layer.function
            if known[source].op == "norm":
                fused[known[source].inputs[0]] = layer.function
    return fused


def _add_normalisation(graph: Graph, image: int, mean: Sequence[float]) -> int:
    """Centres the pixels; the division by the spread goes into the first convolution's weights.

    The subtraction cannot follow it there: the zeros that pad a picture stand for normalised pixels.
    """
    shape, x = graph.shape(image), image
    if graph.tensors[image].type == graph.schema.TensorType.UINT8:
        x = graph.operator("CAST", [image], "normalise.cast", shape)
    centre = graph.constant("normalise.mean", 255.0 * np.asarray(mean, np.float32))
    return graph.operator("SUB", [x, centre], CENTRED, shape, graph.options("Sub"))


def _add_conv(
    graph: Graph,
    name: str,
    layer: Layer,
    x: int,
    constants: tuple[np.ndarray, np.ndarray],
    spec: ArchSpec,
    function: str,
) -> int:
    side = graph.shape(x)[1]
    x, padding = _pad(graph, name, layer, x, symmetric=spec.padding == "symmetric")
    options = {
        "padding": padding,
        "strideW": layer.stride,
        "strideH": layer.stride,
        "fusedActivationFunction": graph.activation(function),
    }
    depthwise = layer.groups > 1
    # Stored out, in, height, width; wanted out, height, width, in or, of a depthwise one, 1, height, width, out.
    kernel = constants[0].transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    inputs = [x, graph.constant(f"{name}.weight", kernel), graph.constant(f"{name}.bias", constants[1])]
    shape = (1, *(output_side(side, layer.stride),) * 2, layer.out_channels)
    if depthwise:
        return graph.operator(
            "DEPTHWISE_CONV_2D", inputs, name, shape, graph.options("DepthwiseConv2D", depthMultiplier=1, **options)
        )
    return graph.operator("CONV_2D", inputs, name, shape, graph.options("Conv2D", **options))


def _pad(graph: Graph, name: str, layer: Layer, x: int, *, symmetric: bool) -> tuple[int, int]:
    """Returns the padded input and the rule for what is left to pad.

    SAME is TensorFlow's rule; it pads symmetrically but where a stride meets a side that it does not fit.
    """
    side, k, stride = graph.shape(x)[1], layer.kernel_size, layer.stride
    same, valid = graph.schema.Padding.SAME, graph.schema.Padding.VALID
    total = (output_side(side, stride) - 1) * stride + k - side
    before = k // 2
    if not symmetric or max(total, 0) // 2 == before:
        return x, same
    # Behind, no more than the last window reads.
    after = max(total - before, 0)
    pads = np.array([[0, 0], [before, after], [before, after], [0, 0]], np.int32)
    shape = (1, *(side + before + after,) * 2, layer.in_channels)
    inputs = [x, graph.constant(f"pads.{before}.{after}", pads)]
    if layer.op == "max_pool":
        # The mirrored edge, which every window that reads it holds already, changes no maximum; zeros would.
        return graph.operator("MIRROR_PAD", inputs, f"{name}.pad", shape, graph.options("MirrorPad", mode=1)), valid
    return graph.operator("PAD", inputs, f"{name}.pad", shape, graph.options("Pad")), valid


def _add_linear(graph: Graph, name: str, x: int, constants: tuple[np.ndarray, np.ndarray]) -> int:
    parts = zip(("weight", "bias"), constants, strict=True)
    inputs = [x, *(graph.constant(f"{name}.{part}", array) for part, array in parts)]
    return graph.operator("FULLY_CONNECTED", inputs, name, (1, len(constants[1])), graph.options("FullyConnected"))


def _add_plain(graph: Graph, name: str, layer: Layer, inputs: list[int], function: str) -> int:
    """Adds an operation without weights."""
    shape = graph.shape(inputs[0])
    match layer.op:
        case "global_pool":
            last = name == "pool"  # its rows are the features; a squeeze's are maps of one pixel
            wanted = (1, layer.out_channels) if last else (1, 1, 1, layer.out_channels)
            axes = graph.constant("pool.axes", _REDUCED)
            return graph.operator("MEAN", [inputs[0], axes], name, wanted, graph.options("Reducer", keepDims=not last))
        case "max_pool":
            x, padding = _pad(graph, name, layer, inputs[0], symmetric=True)
            k, stride = layer.kernel_size, layer.stride
            options = graph.options(
                "Pool2D", padding=padding, strideW=stride, strideH=stride, filterWidth=k, filterHeight=k
            )
            wanted = (1, *(output_side(shape[1], stride),) * 2, layer.out_channels)
            return graph.operator("MAX_POOL_2D", [x], name, wanted, options)
        case "add":
            options = graph.options("Add", fusedActivationFunction=graph.activation(function))
            return graph.operator("ADD", inputs, name, shape, options)
    return graph.operator("MUL", inputs, name, shape, graph.options("Mul"))


def _add_function(graph: Graph, name: str, function: str, x: int) -> int:
    shape = graph.shape(x)
    match function:
        case "sigmoid":
            return graph.operator("LOGISTIC", [x], name, shape)
        case "silu":
            gate = graph.operator("LOGISTIC", [x], f"{name}.sigmoid", shape)
            return graph.operator("MUL", [x, gate], name, shape, graph.options("Mul"))
        case "hard_swish":
            return graph.operator("HARD_SWISH", [x], name, shape, graph.options("HardSwish"))
        case "hard_sigmoid":
            inside = graph.options("Add", fusedActivationFunction=graph.activation("relu6"))
            shifted = graph.operator(
                "ADD", [x, graph.constant("three", np.array([3], np.float32))], f"{name}.shift", shape, inside
            )
            sixth = graph.constant("sixth", np.array([1 / 6], np.float32))
            return graph.operator("MUL", [shifted, sixth], name, shape, graph.options("Mul"))
    raise SpecError(f"LiteRT has no {function}")


def serialise(model: Any) -> bytes:
    """Returns the file of a ModelT, its constants aligned as the format's own writer has them."""
    import flatbuffers

    schema = load_schema()
    packed = copy.copy(model)
    packed.buffers = [_Constant(schema, buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024 + sum(len(buffer.data) + _ALIGNMENT for buffer in packed.buffers))
    builder.Finish(packed.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Constant:
    """A buffer that packs itself on an aligned place, which the generated class does not."""

    def __init__(self, schema: ModuleType, data: Any) -> None:
        self._schema = schema
        self.data = b"" if data is None else bytes(data)

    def Pack(self, builder: Any) -> int:
        vector = None
        if self.data:
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            vector = builder.EndVector()
        self._schema.BufferStart(builder)
        if vector is not None:
            self._schema.BufferAddData(builder, vector)
        return self._schema.BufferEnd(builder)
