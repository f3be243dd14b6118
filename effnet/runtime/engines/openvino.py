"""OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import BundleError, MissingExtraError


def preload() -> Any:
    """Imports the runtime and returns it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino


class OpenVinoEngine:
    """A model compiled for the CPU, in the precision that its file has and no lower one."""

    def __init__(self, path: Path, *, threads: int) -> None:
        openvino = preload()
        if not path.is_file():
            raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it")
        # On processors with AMX the default is bfloat16, whose probabilities differ from the trained network's.
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self.model = openvino.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {openvino.__version__} cannot read {path}: {error}") from error
        self._request = self.model.create_infer_request()
        shape = self.model.input(0).get_partial_shape()
        self.side, self.channels = shape[1].get_length(), shape[3].get_length()
        self.classes = self.model.output(0).get_partial_shape()[1].get_length()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        return np.array(self._request.infer([np.ascontiguousarray(images)])[0])


def open_engine(path: Path, *, threads: int) -> OpenVinoEngine:
    """Opens a model of OpenVINO's, or an ONNX file; raises BundleError where it is missing or unreadable."""
    return OpenVinoEngine(path, threads=threads)
