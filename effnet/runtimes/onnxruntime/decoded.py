"""The layers and the outputs of networks with a decoder, as ONNX nodes."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.layers import INPUT, Size, graph_outputs, output_shapes
from effnet.arch.spec import ArchSpec
from effnet.runtimes.onnxruntime.builder import Graph


def add_resize(graph: Graph, x: str, output: str, before: Size, after: Size) -> str:
    """Add a resize of a feature map by its nearest pixels: pixel i of n is i * m / n of m, rounded down."""
    given = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    factors = [new / old for old, new in zip(before, after, strict=True)]
    if all(factor.is_integer() for factor in factors):
        name = "scale.{:g}x{:g}".format(*factors)
        scales = graph.shared(name, np.array([1, 1, *factors], np.float32))
        return graph.node("Resize", [x, "", scales], output, **given)
    # Other factors are not exact in floating point; a size must give the batch too.
    batch = graph.node("Shape", [x], f"{output}.batch", start=0, end=2)
    size = graph.shared(f"size.{after[0]}x{after[1]}", np.array(after, np.int64))
    return graph.node(
        "Resize", [x, "", "", graph.node("Concat", [batch, size], f"{output}.size", axis=0)], output, **given
    )


def add_fusion(graph: Graph, inputs: Sequence[str], factors: Sequence[str], output: str) -> str:
    """Add the sum of feature maps, each times its factor."""
    pairs = enumerate(zip(inputs, factors, strict=True))
    terms = [graph.node("Mul", pair, f"{output}.term{number}") for number, pair in pairs]
    x = terms[0]
    for number, term in enumerate(terms[1:], 2):
        x = graph.node("Add", [x, term], output if number == len(terms) else f"{output}.sum{number}")
    return x


def add_decoded(
    graph: Graph, names: Mapping[str, str], spec: ArchSpec, sizes: Mapping[str, Size]
) -> dict[str, list[int | str]]:
    """Add the outputs of a network with a decoder, from its last layers in `names`; return their shapes by name."""
    for output in graph_outputs(spec):
        if output.kind == "map":
            graph.node("Identity", [names[output.layers[0]]], output.name)
        else:
            rows = graph.shared(f"rows.{output.columns}", np.array([0, -1, output.columns], np.int64))
            parts = []
            for number, layer in enumerate(output.layers):
                last = graph.node("Transpose", [names[layer]], f"{output.name}.last{number}", perm=[0, 2, 3, 1])
                parts.append(graph.node("Reshape", [last, rows], f"{output.name}.rows{number}"))
            graph.node("Concat", parts, output.name, axis=1)
    return {name: ["batch", *shape] for name, shape in output_shapes(spec, sizes[INPUT]).items()}
