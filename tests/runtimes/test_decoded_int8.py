"""int8 files of detectors and segmenters: boxes and scores keep their scales, and levels are joined as floats."""

import numpy as np
import onnx
import pytest
from decoders import NETWORKS, correlations, made, written

from effnet.arch.layers import graph_outputs
from effnet.runtimes.onnxruntime.int8_ranges import affine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", NETWORKS)
def test_an_onnx_file_gives_nearly_the_outputs_of_torch(name, tmp_path):
    assert min(correlations(name, "onnx-int8", tmp_path).values()) > 0.97


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tflite_file_gives_nearly_the_outputs_of_torch(name, tmp_path):
    pytest.importorskip("ai_edge_quantizer")
    assert min(correlations(name, "litert-int8", tmp_path).values()) > 0.97


@pytest.mark.parametrize("name", ["wide", "unet", "anchors"])
def test_an_onnx_file_resizes_and_joins_in_integers_and_the_levels_in_floats(name, tmp_path):
    """Read back by onnx: what writes into each operator, and with how many scales the levels end."""
    written(name, "onnx-int8", tmp_path)
    model = onnx.load(tmp_path / "model.int8.onnx")
    types = {output: node.op_type for node in model.graph.node for output in node.output}
    kinds = {output: node for node in model.graph.node for output in node.output}
    outputs = graph_outputs(made(name)[0].spec)
    for node in model.graph.node:
        if node.op_type in ("Resize", "MaxPool"):
            assert types[node.input[0]] in ("QuantizeLinear", "Resize", "MaxPool")
        if node.op_type in ("Conv", "Add", "Concat") and node.output[0] not in {output.name for output in outputs}:
            if node.output[0].endswith(".size"):
                continue
            sources = [types.get(source) for source in node.input[: 1 if node.op_type == "Conv" else None]]
            assert set(sources) == {"DequantizeLinear"}
    for output in outputs:
        scales = {kinds[f"{layer}.dequantized"].input[1] for layer in output.layers}
        assert len(scales) == len(output.layers)


def test_one_scale_for_boxes_and_scores_would_ruin_the_scores():
    """The known fault of int8 exports whose one output holds both: pixels of boxes leave no steps for scores."""
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 320, (2_000, 4)), 1 / (1 + np.exp(-rng.normal(-4, 2, (2_000, 6))))

    def rounded(values, low, high):
        scheme = affine(low, high)
        return np.clip(np.round(values / scheme.scale) + scheme.zero_point, 0, 255)

    joined = rounded(scores, 0, float(boxes.max()))
    assert len(np.unique(joined)) <= 2
    assert len(np.unique(rounded(scores, 0, 1))) > 200
