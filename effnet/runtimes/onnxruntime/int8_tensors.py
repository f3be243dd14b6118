"""The tensors of an int8 ONNX graph: fp32 values, and the 8-bit numbers that they are made of."""

from dataclasses import dataclass

import numpy as np

from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.int8_ranges import Affine


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An output in the graph: the name of its fp32 values, and of its quantized values if it has any."""

    values: str
    quantized: str = ""
    scheme: Affine | None = None


def quantize(graph: Graph, values: str, scheme: Affine) -> Tensor:
    """Add the conversion of fp32 values to uint8 and back."""
    return dequantize(graph, to_8_bits(graph, values, scheme), scheme)


def to_8_bits(graph: Graph, values: str, scheme: Affine) -> str:
    """Add the conversion of fp32 values to uint8; return their name."""
    parameters = [_constant_once(graph, scheme.scale), _constant_once(graph, scheme.zero_point)]
    return graph.node("QuantizeLinear", [values, *parameters], f"{values.removesuffix('.float')}.quantized")


def dequantize(graph: Graph, quantized: str, scheme: Affine, *, name: str = "") -> Tensor:
    """Add the conversion of 8-bit numbers to fp32 values."""
    parameters = [_constant_once(graph, scheme.scale), _constant_once(graph, scheme.zero_point)]
    name = f"{name or quantized.removesuffix('.quantized')}.dequantized"
    values = graph.node("DequantizeLinear", [quantized, *parameters], name)
    return Tensor(values=values, quantized=quantized, scheme=scheme)


def _constant_once(graph: Graph, value: float | int) -> str:
    """Return the name of a scale (a float) or a zero point (an int)."""
    array = np.array(value, np.uint8 if isinstance(value, int) else np.float32)
    return graph.shared(f"zero_point.{array}" if isinstance(value, int) else f"scale.{array.tobytes().hex()}", array)
