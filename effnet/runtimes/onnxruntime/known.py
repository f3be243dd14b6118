"""The score that says "unknown" as an output of an ONNX file, in floats whatever the precision of the network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.metadata import KNOWN
from effnet.bundle.names import SCORE_ARRAYS
from effnet.errors import BundleError, EffnetError
from effnet.runtimes.maps import MAPS
from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.graph import write_onnx
from effnet.tasks.known import SCORE, KnownScore

if TYPE_CHECKING:
    import onnx

_LEAST_LENGTH = 1e-12
_FLOAT = 1  # onnx.TensorProto.FLOAT, for Cast


def with_score(model: "onnx.ModelProto", config: ModelConfig) -> "onnx.ModelProto":
    """Return the model with the score of `config` as an output after the probabilities, unchanged if it has none.

    The score is computed from what the last layer reads and returns, so it is that of effnet.measurement.known.scores.
    Raises BundleError if the config lacks arrays of the score.
    """
    score = config.known
    if score is None:
        return model
    if not score.complete:
        raise BundleError(
            f"an export with the score {score.method} needs its arrays, which {SCORE_ARRAYS} of a bundle holds; there "
            "is none: copy it beside config.json"
        )
    import onnx

    graph = Graph(onnx)
    last = _last_layer(model)
    features, weight, bias = last.input
    stored = {name: value for name, value in score.arrays.items() if value.ndim and name != "weights"}
    arrays = {name: _stored(graph, f"{SCORE}.{name}", value) for name, value in stored.items()}
    match score.method:
        case "energy" | "react":
            _add_energy(graph, score, features, [weight, bias], last.output[0], config.temperature, SCORE)
        case "knn":
            _add_neighbours(graph, score, features, arrays, SCORE)
        case "mahalanobis":
            _add_distances(graph, score, features, arrays, SCORE)
        case "sum":
            parts = (
                _add_log_odds(graph, last.output[0], classes=config.arch.num_classes),
                _add_energy(graph, score, features, [], last.output[0], config.temperature, f"{SCORE}.energy"),
                _add_neighbours(graph, score, features, arrays, f"{SCORE}.knn"),
                _add_distances(graph, score, features, arrays, f"{SCORE}.mahalanobis"),
            )
            _add_sum(graph, parts, score)
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    _declare(model, onnx)
    onnx.helper.set_model_props(model, {**{each.key: each.value for each in model.metadata_props}, **_said(score)})
    return model


def rewrite_with_score(path: Path, config: ModelConfig) -> None:
    """Add the score of `config` to the ONNX file at `path`, which has none, whole or not at all."""
    import onnx

    write_onnx(with_score(onnx.load_model_from_string(path.read_bytes()), config), path)


def _said(score: KnownScore) -> dict[str, str]:
    return {KNOWN: json.dumps(score.to_dict())}


def _last_layer(model: "onnx.ModelProto") -> Any:
    """Return the node of the last layer, logits = Gemm(features, weight, bias)."""
    found = [node for node in model.graph.node if node.op_type == "Gemm" and node.input[1] == "classifier.weight"]
    if len(found) != 1:
        raise EffnetError(
            "a classifier's ONNX graph must have one last layer; it has not. `effnet export` writes it again"
        )
    return found[0]


def _declare(model: "onnx.ModelProto", onnx: Any) -> None:
    """Make the score an output: after the probabilities, before the activation maps."""
    new = onnx.helper.make_tensor_value_info(SCORE, onnx.TensorProto.FLOAT, ["batch", 1])
    place = next((i for i, output in enumerate(model.graph.output) if output.name == MAPS), len(model.graph.output))
    model.graph.output.insert(place, new)


def _stored(graph: Graph, name: str, array: np.ndarray) -> str:
    """Store an array and return the name of its fp32 values: as fp16 if that holds it exactly."""
    half = array.astype(np.float16)
    if array.size > 1 and np.array_equal(half.astype(np.float32), array):
        return graph.node("Cast", [graph.constant(f"{name}.half", half)], name, to=_FLOAT)
    return graph.constant(name, array.astype(np.float32))


def _number(graph: Graph, name: str, value: float) -> str:
    return graph.constant(f"{SCORE}.{name}", np.array(value, np.float32))


def _add_energy(
    graph: Graph, score: KnownScore, features: str, weights: list[str], logits: str, temperature: float, name: str
) -> str:
    if score.method == "react":
        clip = _number(graph, "clip", float(score.arrays["clip"]))
        clipped = graph.node("Min", [features, clip], f"{SCORE}.clipped")
        logits = graph.node("Gemm", [clipped, *weights], f"{SCORE}.logits", transB=1)
    if temperature != 1:  # the file's last layer is divided by it
        logits = graph.node("Mul", [logits, _number(graph, "temperature", temperature)], f"{SCORE}.raw")
    return graph.node("ReduceLogSumExp", [logits], name, axes=[1], keepdims=1)


def _add_unit(graph: Graph, x: str, name: str) -> str:
    """Add the rows of `x` divided by their length."""
    length = graph.node("ReduceL2", [x], f"{name}.length", axes=[1], keepdims=1)
    length = graph.node("Max", [length, _number(graph, "least", _LEAST_LENGTH)], f"{name}.positive")
    return graph.node("Div", [x, length], name)


def _add_neighbours(graph: Graph, score: KnownScore, features: str, arrays: Mapping[str, str], name: str) -> str:
    unit = _add_unit(graph, graph.node("Sub", [features, arrays["centre"]], f"{SCORE}.centred"), f"{SCORE}.direction")
    turned = graph.node("Transpose", [arrays["bank"]], f"{SCORE}.bank.turned", perm=[1, 0])
    near = graph.node("MatMul", [unit, turned], f"{SCORE}.near")
    count = graph.constant(f"{SCORE}.count", np.array([int(score.arrays["neighbours"])], np.int64))
    outputs = [f"{SCORE}.nearest", f"{SCORE}.places"]
    graph.nodes.append(graph.onnx.helper.make_node("TopK", [near, count], outputs, name=outputs[0], axis=1))
    return graph.node("ReduceMin", [outputs[0]], name, axes=[1], keepdims=1)


def _add_distances(graph: Graph, score: KnownScore, features: str, arrays: Mapping[str, str], name: str) -> str:
    apart = graph.node("Sub", [_add_unit(graph, features, f"{SCORE}.unit"), arrays["mean"]], f"{SCORE}.apart")
    turned = graph.node("Transpose", [arrays["axes"]], f"{SCORE}.axes.turned", perm=[1, 0])
    along = graph.node("MatMul", [apart, turned], f"{SCORE}.along")
    squares = [graph.node("ReduceSumSquare", [x], f"{x}.square", axes=[1], keepdims=1) for x in (apart, along)]
    rest = graph.node("Sub", squares, f"{SCORE}.rest")
    base = graph.node("Mul", [rest, _number(graph, "scale", float(score.arrays["scale"]))], f"{SCORE}.base")
    each = graph.node("Gemm", [apart, arrays["linear"], arrays["constant"]], f"{SCORE}.each", transB=1)
    best = graph.node("ReduceMax", [each], f"{SCORE}.best", axes=[1], keepdims=1)
    return graph.node("Sub", [best, base], name)


def _add_log_odds(graph: Graph, logits: str, *, classes: int) -> str:
    """Add the largest logit less the logarithm of the sum of exp of the others."""
    count = graph.constant(f"{SCORE}.classes", np.array([classes], np.int64))
    outputs = [f"{SCORE}.ordered", f"{SCORE}.order"]
    graph.nodes.append(graph.onnx.helper.make_node("TopK", [logits, count], outputs, name=outputs[0], axis=1))
    first, others = graph.split(outputs[0], [1, classes - 1])
    rest = graph.node("ReduceLogSumExp", [others], f"{SCORE}.others", axes=[1], keepdims=1)
    return graph.node("Sub", [first, rest], f"{SCORE}.odds")


def _add_sum(graph: Graph, parts: Sequence[str], score: KnownScore) -> None:
    together = graph.node("Concat", parts, f"{SCORE}.parts", axis=1)
    column = graph.constant(f"{SCORE}.column", score.arrays["weights"].astype(np.float32)[:, None])
    product = graph.node("MatMul", [together, column], f"{SCORE}.summed")
    graph.node("Sub", [product, _number(graph, "offset", float(score.arrays["offset"]))], SCORE)
