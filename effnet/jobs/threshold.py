"""The threshold of a detector's scores, chosen on the validation images with the exported file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from effnet.bundle.config import ModelConfig, write_config
from effnet.data.datasets import Dataset
from effnet.measurement.evaluate import evaluate
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.predictor import Predictor


def with_threshold(
    config: ModelConfig, state: Mapping[str, np.ndarray], dataset: Dataset, *, folder: Path
) -> ModelConfig:
    """Return the config with the threshold of the best F1 on the validation images, if it is a detector's.

    The bundle `folder` and its ONNX file get it.
    """
    write_config(config, folder)
    export_onnx(folder, config, state)
    if dataset.task != "detection" or not len(dataset.val):
        return config
    score = evaluate(Predictor(folder), dataset.val)
    config = dataclasses.replace(config, threshold=round(float(score.threshold), 4))
    write_config(config, folder)
    export_onnx(folder, config, state)
    return config
