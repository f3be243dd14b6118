"""What a processor does with int8, and what effnet makes of it."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from effnet.runtimes.onnxruntime.int8_graph import SAFE_LEVELS, WEIGHT_LEVELS, levels_here
from effnet.system.processor import int8_saturates


def quantized_product(weight: int) -> np.ndarray:
    """Return what ONNX Runtime makes of 64 products of 255 and `weight`, summed in int32."""
    constants = {"w": np.full((64, 8), weight, np.int8), "a": np.uint8(0), "b": np.int8(0)}
    node = helper.make_node("MatMulInteger", ["x", "w", "a", "b"], ["y"])
    graph = helper.make_graph(
        [node], "product", [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.full((1, 64), 255, np.uint8)})[0]


def test_weights_of_7_bits_are_added_exactly_on_every_processor():
    assert (quantized_product(SAFE_LEVELS) == 64 * 255 * SAFE_LEVELS).all()
    assert (quantized_product(levels_here()) == 64 * 255 * levels_here()).all()


@pytest.mark.skipif(int8_saturates(), reason="sums of this processor's int8 products saturate")
def test_other_processors_add_products_of_8_bits_exactly():
    assert (quantized_product(WEIGHT_LEVELS) == 64 * 255 * WEIGHT_LEVELS).all()
