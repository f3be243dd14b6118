"""The layers and the outputs of networks with a decoder, as TFLite operators."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.layers import GraphOutput, Layer, Size, graph_outputs
from effnet.arch.spec import ArchSpec
from effnet.runtimes.litert.flatbuffer import Graph
from effnet.tasks.task import Output

# LiteRT aborts the process at an int8 factor of 0, whose step would be 0; this one changes no number.
_LEAST_FACTOR = 1e-9


def add_joined(
    graph: Graph, name: str, layer: Layer, inputs: Sequence[int], size: Size, weights: Mapping[str, np.ndarray]
) -> int:
    """Add a resize to `size`, a concatenation or a fusion, and return its output."""
    shape = (1, *size, layer.out_channels)
    match layer.op:
        case "resize":
            return _add_resize(graph, name, inputs[0], shape)
        case "concat":
            return graph.operator("CONCATENATION", inputs, name, shape, graph.options("Concatenation", axis=3))
    # The sum of feature maps, each times its factor.
    x = -1
    for number, (source, factor) in enumerate(zip(inputs, weights[f"{name}.weight"], strict=True)):
        factors = graph.constant(f"{name}.weight{number}", np.array([max(factor, _LEAST_FACTOR)], np.float32))
        term = graph.operator("MUL", [source, factors], f"{name}.term{number}", shape, graph.options("Mul"))
        called = name if number == len(inputs) - 1 else f"{name}.sum{number}"
        x = term if x < 0 else graph.operator("ADD", [x, term], called, shape, graph.options("Add"))
    return x


def _add_resize(graph: Graph, name: str, x: int, shape: tuple[int, ...]) -> int:
    """Add a resize of a feature map by its nearest pixels: pixel i of n is i * m / n of m, rounded down."""
    (height, width), (rows, columns) = graph.shape(x)[1:3], shape[1:3]
    exact = [_is_exact(before, after) for before, after in ((height, rows), (width, columns))]
    if all(exact):
        wanted = graph.constant(f"size.{rows}x{columns}", np.array(shape[1:3], np.int32))
        return graph.operator(
            "RESIZE_NEAREST_NEIGHBOR", [x, wanted], name, shape, graph.options("ResizeNearestNeighbor")
        )
    x = _gathered(graph, f"{name}.rows", x, 1, rows)
    return _gathered(graph, name, x, 2, columns)


def _is_exact(before: int, after: int) -> bool:
    """Return whether LiteRT's arithmetic, in float32, finds the right pixels of a side."""
    step = np.float32(before) / np.float32(after)
    found = np.floor(np.arange(after, dtype=np.float32) * step).astype(np.int64)
    return np.array_equal(found, np.arange(after) * before // after)


def _gathered(graph: Graph, name: str, x: int, axis: int, after: int) -> int:
    """Add the resize of one side as a choice of its pixels."""
    shape = [*graph.shape(x)]
    chosen = (np.arange(after) * shape[axis] // after).astype(np.int32)
    places = graph.constant(f"places.{shape[axis]}.{after}", chosen)
    shape[axis] = after
    return graph.operator("GATHER", [x, places], name, shape, graph.options("Gather", axis=axis))


def add_decoded(graph: Graph, names: Mapping[str, int], spec: ArchSpec) -> list[int]:
    """Add the outputs of a network with a decoder, from its last layers in `names`; return their tensors."""
    return [
        _add_map(graph, names, output) if output.kind == "map" else _add_rows(graph, names, output)
        for output in graph_outputs(spec)
    ]


def _add_map(graph: Graph, names: Mapping[str, int], output: GraphOutput) -> int:
    x = names[output.layers[0]]
    _, height, width, columns = graph.shape(x)
    order = graph.constant("nchw", np.array([0, 3, 1, 2], np.int32))
    return graph.operator("TRANSPOSE", [x, order], output.name, (1, columns, height, width), graph.options("Transpose"))


def _add_rows(graph: Graph, names: Mapping[str, int], output: GraphOutput) -> int:
    """Add the rows of all levels, one after the other."""
    parts, columns = [], output.columns
    for number, layer in enumerate(output.layers):
        places = int(np.prod(graph.shape(names[layer]))) // columns
        wanted = [-1, places, columns]
        shape = graph.constant(f"rows.{places}x{columns}", np.array(wanted, np.int32))
        options = graph.options("Reshape", newShape=wanted)
        name = rows_name(output.name, number)
        parts.append(graph.operator("RESHAPE", [names[layer], shape], name, (1, places, columns), options))
    total = sum(graph.shape(part)[1] for part in parts)
    return graph.operator(
        "CONCATENATION", parts, output.name, (1, total, columns), graph.options("Concatenation", axis=1)
    )


def rows_name(output: str, number: int) -> str:
    """Return the name of the rows of one level within the output `output`."""
    return f"{output}.rows{number}"


def float_outputs(spec: ArchSpec) -> list[str]:
    """Return the tensors that stay float in int8: each level has a scale of its own, which one for all would ruin."""
    found = []
    for output in graph_outputs(spec):
        found += [output.name]
        if output.kind == "rows":
            found += [rows_name(output.name, number) for number in range(len(output.layers))]
    return found


def answers_of(spec: ArchSpec, answers: Sequence[Output]) -> Sequence[Output]:
    """Return the outputs of a file of `spec`: `answers`, or by their names alone if these are of another network."""
    names = [output.name for output in graph_outputs(spec)]
    if not names or names == [answer.name for answer in answers]:
        return answers
    return [
        Output(name=name, activation="none", meaning="raw values", titled="a network with a decoder") for name in names
    ]
