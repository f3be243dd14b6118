"""Files of detectors and segmenters return the outputs of the torch network, under their names, in their shapes."""

import numpy as np
import pytest
from decoders import NETWORKS, assert_outputs_of_torch, correlations
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tflite_file_gives_the_outputs_of_torch(name, tmp_path):
    pytest.importorskip("ai_edge_litert")
    assert_outputs_of_torch(name, "litert", tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("target", "least"), [("onnx-fp16", 0.999), ("onnx-w8", 0.97), ("onnx-int8", 0.97)])
def test_small_formats_give_nearly_the_outputs_of_torch(name, target, least, tmp_path):
    assert min(correlations(name, target, tmp_path).values()) > least


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 24), st.integers(1, 80), st.integers(1, 24), st.integers(1, 80))
def test_a_resize_takes_the_nearest_pixels_in_all_formats(rows, after_rows, columns, after_columns):
    """Also of 50 to 198, where float32 arithmetic chooses another pixel; the truth is arithmetic of whole numbers."""
    check_resize((rows, columns), (after_rows, after_columns))


def test_a_resize_of_50_to_198_takes_the_nearest_pixels():
    check_resize((50, 4), (198, 110))


def check_resize(before, after):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    import onnx
    import onnxruntime
    import torch

    from effnet.arch.layers import Layer
    from effnet.nn.layers import Resize
    from effnet.runtimes.litert.decoded import add_joined
    from effnet.runtimes.litert.flatbuffer import Graph, serialise
    from effnet.runtimes.onnxruntime.builder import Graph as OnnxGraph
    from effnet.runtimes.onnxruntime.decoded import add_resize

    image = np.random.default_rng(0).random((1, 2, *before), dtype=np.float32)
    places = [np.arange(new) * old // new for old, new in zip(before, after, strict=True)]
    expected = image[:, :, places[0]][..., places[1]]
    np.testing.assert_array_equal(Resize(1)(torch.from_numpy(image), after).numpy(), expected)
    graph = OnnxGraph(onnx)
    add_resize(graph, "x", "y", before, after)
    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(name, kind, [1, 2, "h", "w"]) for name in "xy"]
    body = onnx.helper.make_graph(graph.nodes, "resize", ends[:1], ends[1:], graph.constants)
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})
    np.testing.assert_array_equal(found, expected)
    graph = Graph()
    x = graph.tensor("x", (1, *before, 2))
    y = add_joined(graph, "y", Layer("resize", ("x",), 2, 2), [x], after, {})
    interpreter = litert.Interpreter(model_content=serialise(graph.model(description="", image=x, outputs=[y])))
    interpreter.allocate_tensors()
    interpreter.set_tensor(x, image.transpose(0, 2, 3, 1))
    interpreter.invoke()
    np.testing.assert_array_equal(interpreter.get_tensor(y).transpose(0, 3, 1, 2), expected)
