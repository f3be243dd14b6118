"""OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import BundleError, MissingExtraError

# Where effnet.exporting.openvino writes it.
_PRECISION = ["effnet", "inference_precision"]


def preload() -> Any:
    """Imports the runtime and returns it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino


class OpenVinoEngine:
    """A model compiled for the CPU, in the precision that its file has and no lower one unless its file asks for it."""

    def __init__(self, path: Path, *, threads: int) -> None:
        openvino = preload()
        if not path.is_file():
            raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it")
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
            options["INFERENCE_PRECISION_HINT"] = _precision(core, model)
            self.model = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {openvino.__version__} cannot read {path}: {error}") from error
        self._request = self.model.create_infer_request()
        shape = self.model.input(0).get_partial_shape()
        self.side, self.channels = shape[1].get_length(), shape[3].get_length()
        self.classes = self.model.output(0).get_partial_shape()[1].get_length()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        return np.array(self._request.infer([np.ascontiguousarray(images)])[0])


def _precision(core: Any, model: Any) -> str:
    """Returns the precision to compute in: 32 bits unless the file asks for bfloat16 and the processor has it.

    On processors with AMX the default would be bfloat16, whose probabilities differ from the trained network's.
    """
    asked = model.has_rt_info(_PRECISION) and model.get_rt_info(_PRECISION).astype(str) == "bf16"
    return "bf16" if asked and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def open_engine(path: Path, *, threads: int) -> OpenVinoEngine:
    """Opens a model of OpenVINO's, or an ONNX file; raises BundleError where it is missing or unreadable."""
    return OpenVinoEngine(path, threads=threads)
