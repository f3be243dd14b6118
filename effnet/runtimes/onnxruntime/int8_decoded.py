"""The layers of decoders that need more in int8 than in fp32."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.int8_ranges import LEAST_SCALE, Affine
from effnet.runtimes.onnxruntime.int8_tensors import Tensor, dequantize, quantize


def write_fusion(
    graph: Graph, name: str, inputs: Sequence[Tensor], factors: np.ndarray, schemes: Mapping[str, Affine]
) -> Tensor:
    """Add the sum of feature maps, each times its factor, which costs nothing: it goes into the map's scale."""
    terms = []
    for number, (tensor, factor) in enumerate(zip(inputs, factors, strict=True)):
        term = f"{name}.term{number}"
        if tensor.scheme is None:
            weight = graph.constant(f"{name}.weight{number}", factor)
            terms.append(graph.node("Mul", [tensor.values, weight], term))
        else:
            scale = max(float(np.float32(tensor.scheme.scale * float(factor))), LEAST_SCALE)
            term_of = Affine(scale, tensor.scheme.zero_point)
            terms.append(dequantize(graph, tensor.quantized, term_of, name=term).values)
    found = Tensor(values=terms[0])
    for number, term in enumerate(terms[1:], 2):
        called = name if number == len(terms) else f"{name}.sum{number}"
        x = graph.node("Add", [found.values, term], f"{called}.float")
        found = quantize(graph, x, schemes[called])
    return found
