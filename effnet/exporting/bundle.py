"""A bundle's weights become its model.onnx."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet.errors import SpecError
from effnet.exporting.onnx import to_onnx, write_onnx
from effnet.exporting.weights import Arrays, fold_norms
from effnet.runtime.config import ONNX, ModelConfig
from effnet.runtime.formats import Format

if TYPE_CHECKING:
    import onnx

    from effnet.exporting.targets import Quantization


def export_onnx(folder: Path, config: ModelConfig, state: Mapping[str, np.ndarray]) -> Path:
    """Writes model.onnx into `folder` from a state dict as arrays, and returns its path.

    Raises SpecError for a network without a classifier, which a fit can begin with but nothing can predict with.
    """
    path = folder / ONNX
    write_onnx(onnx_model(config, state), path)
    return path


def write(
    target: Format,
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    *,
    images: np.ndarray | None,
    quantization: "Quantization",
) -> None:
    """Writes one of ONNX Runtime's formats into `folder`; see effnet.exporting.targets.write_export."""
    if target.precision == "fp32":
        export_onnx(folder, config, state)
        return
    from effnet.exporting import qdq

    qdq.write(target, folder, config, state, images=images, quantization=quantization)


def onnx_model(config: ModelConfig, state: Mapping[str, np.ndarray]) -> "onnx.ModelProto":
    """Returns the ONNX model of a state dict as arrays, from which the other runtimes' files are made too.

    The class names, the preprocessing and the threshold travel in the file's metadata, so that it is usable alone.
    Raises SpecError for a network without a classifier.
    """
    if not config.arch.num_classes:
        raise SpecError(
            f"a bundle's {ONNX} gives probabilities, and {config.arch.name} has no classifier (num_classes = 0); "
            "train one on your pictures: effnet fit DATA --weights BUNDLE"
        )
    preprocess = config.preprocess
    return to_onnx(
        config.arch,
        calibrated_weights(config, state),
        mean=preprocess.mean,
        std=preprocess.std,
        resolution=preprocess.resolution,
        metadata=model_metadata(config),
    )


def model_metadata(config: ModelConfig) -> dict[str, str]:
    """Returns what a file tells of itself, in texts: class names and preprocessing as JSON, network, threshold."""
    threshold = {} if config.threshold is None else {"threshold": repr(config.threshold)}
    return {
        "class_names": json.dumps(list(config.class_names), ensure_ascii=False),
        "preprocess": json.dumps(config.preprocess.to_dict()),
        "network": config.arch.name,
        **threshold,
    }


def calibrated_weights(config: ModelConfig, state: Mapping[str, np.ndarray]) -> Arrays:
    """Returns folded weights whose logits are already divided by the config's temperature.

    Whatever runs them then gives calibrated probabilities. `state` is a state dict as arrays.
    """
    weights = fold_norms(config.arch, state)
    classifier = {name: weights[name] / config.temperature for name in weights if name.startswith("classifier.")}
    return weights | {name: array.astype(np.float32) for name, array in classifier.items()}
