"""Export a bundle to ONNX Runtime's formats."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Format
from effnet.bundle.metadata import model_metadata
from effnet.bundle.names import ONNX
from effnet.runtimes.onnxruntime import RUNTIME
from effnet.runtimes.onnxruntime import int8 as qdq
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.known import with_score
from effnet.runtimes.write import Quantization, check_classifier
from effnet.weights.folding import calibrated_weights

if TYPE_CHECKING:
    import onnx


def export_onnx(folder: Path, config: ModelConfig, state: Mapping[str, np.ndarray]) -> Path:
    """Write model.onnx into `folder` from a state dict as arrays, and return its path.

    The file's metadata hold the class names, the preprocessing and the threshold, so that it is usable alone. Raises
    SpecError for a network without a classifier: a fit can start from it, but it cannot predict.
    """
    check_classifier(config, RUNTIME.formats[0])
    path = folder / ONNX
    write_onnx(with_score(onnx_model(config, state), config), path)
    return path


def onnx_model(config: ModelConfig, state: Mapping[str, np.ndarray], *, maps: bool = False) -> "onnx.ModelProto":
    """Return the fp32 ONNX model of a bundle; it outputs features if the bundle has no last layer."""
    preprocess = config.preprocess
    return to_onnx(
        config.arch,
        calibrated_weights(config, state),
        mean=preprocess.mean,
        std=preprocess.std,
        resolution=preprocess.resolution,
        metadata=model_metadata(config),
        answers=config.file_outputs,
        maps=maps,
    )


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: Quantization,
    maps: bool = False,
) -> None:
    """Write one of ONNX Runtime's formats into `folder`."""
    if target.precision == "fp32":
        write_onnx(with_score(onnx_model(config, state, maps=maps), config), folder / target.file)
    else:
        qdq.write(target, folder, config, state, images=images, quantization=quantization, maps=maps)
