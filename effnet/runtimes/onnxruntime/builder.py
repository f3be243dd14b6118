"""An ONNX graph under construction."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Graph:
    """The nodes and constants of a graph under construction."""

    def __init__(self, onnx_module: Any) -> None:
        self.onnx = onnx_module
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        # ascontiguousarray would turn a scalar into a vector.
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def split(self, x: str, widths: Sequence[int]) -> list[str]:
        """Add the split of rows [batch, columns] into parts of these widths, named X.0, X.1, ...; return the names."""
        sizes = self.constant(f"{x}.widths", np.array(widths, np.int64))
        parts = [f"{x}.{number}" for number in range(len(widths))]
        self.nodes.append(self.onnx.helper.make_node("Split", [x, sizes], parts, name=f"{x}.split", axis=1))
        return parts

    def shared(self, name: str, array: np.ndarray) -> str:
        """Add a constant that several nodes read, once."""
        if all(constant.name != name for constant in self.constants):
            self.constant(name, array)
        return name
