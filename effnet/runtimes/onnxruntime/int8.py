"""ONNX Runtime's small formats: int8, and fp32 arithmetic on weights stored as int8 or fp16."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.metadata import model_metadata
from effnet.errors import InputError
from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.int8_bias import correct_fast, correct_full
from effnet.runtimes.onnxruntime.int8_calibrate import calibrate
from effnet.runtimes.onnxruntime.int8_graph import quantize_weight, to_qdq
from effnet.runtimes.onnxruntime.known import with_score
from effnet.runtimes.pipeline import Progress
from effnet.runtimes.write import Quantization
from effnet.tasks.classification import PROBABILITIES
from effnet.tasks.task import Output
from effnet.weights.folding import calibrated_weights

if TYPE_CHECKING:
    import onnx

# Means need few images, and full correction runs the images once per layer.
_FULL_IMAGES = 64
_FLOAT = 1  # onnx.TensorProto.FLOAT, for Cast


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: Quantization,
    maps: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write onnx-int8, onnx-w8 or onnx-fp16 of a state dict as arrays into `folder`, whole or not at all.

    `images`, uint8 [images, R, R, C], calibrate int8. Raises InputError for int8 without images.
    """
    weights = calibrated_weights(config, state)
    preprocess = config.preprocess
    given: dict[str, Any] = {"mean": preprocess.mean, "std": preprocess.std, "resolution": preprocess.resolution}
    common: dict[str, Any] = {"answers": config.file_outputs, "maps": maps, **given}
    metadata = model_metadata(config) | {"precision": target.precision}
    if target.precision == "int8":
        if images is None or not len(images):
            raise InputError(f"{target.name} must be calibrated on images; got none")
        model = quantize(config.arch, weights, images, quantization, metadata=metadata, progress=progress, **common)
    else:
        store = store_int8 if target.precision == "w8" else store_half
        model = to_onnx(config.arch, weights, metadata=metadata, parameter=store, **common)
    write_onnx(with_score(model, config), folder / target.file)


def quantize(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    quantization: Quantization,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resolution: int | None = None,
    metadata: Mapping[str, str] | None = None,
    answers: Sequence[Output] = (PROBABILITIES,),
    maps: bool = False,
    progress: Progress | None = None,
) -> "onnx.ModelProto":
    """Return the int8 model of `spec`, calibrated on `images`, with bias correction and float layers as requested."""
    given: dict[str, Any] = {"mean": mean, "std": std, "resolution": resolution}
    ranges = calibrate(spec, weights, images, method=quantization.method, progress=progress, **given)
    kept = quantization.float_layers
    match quantization.bias_correction:
        case "fast":
            weights = correct_fast(spec, weights, images, float_layers=kept, **given)
        case "full":
            some = images[:: max(1, len(images) // _FULL_IMAGES)][:_FULL_IMAGES]
            weights = correct_full(spec, weights, ranges, some, float_layers=kept, progress=progress, **given)
    pair = quantization.pair_stem
    return to_qdq(
        spec, weights, ranges, float_layers=kept, metadata=metadata, pair_stem=pair, answers=answers, maps=maps, **given
    )


def store_int8(graph: Graph, name: str, array: np.ndarray) -> str:
    """Store a weight as int8, one scale per channel, and its conversion to fp32; a bias stays fp32.

    A cast and a product: ONNX Runtime computes them once, when the model loads; a DequantizeLinear runs every time.
    """
    if array.ndim == 1:
        return graph.constant(name, array)
    quantized, scales = quantize_weight(array)
    shape = (-1,) + (1,) * (array.ndim - 1)
    x = graph.node("Cast", [graph.constant(f"{name}.quantized", quantized)], f"{name}.cast", to=_FLOAT)
    return graph.node("Mul", [x, graph.constant(f"{name}.scale", scales.reshape(shape))], name)


def store_half(graph: Graph, name: str, array: np.ndarray) -> str:
    """Store an array as fp16, and its conversion to fp32, which runs once when the model loads."""
    limit = float(np.finfo(np.float16).max)
    half = graph.constant(f"{name}.half", np.clip(array, -limit, limit).astype(np.float16))
    return graph.node("Cast", [half], name, to=_FLOAT)
