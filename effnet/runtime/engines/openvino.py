"""OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import BundleError, MissingExtraError

# Where effnet.exporting.openvino writes it.
_PRECISION = ["effnet", "inference_precision"]

# Each compiled size holds its own memory; a run has one batch, and one that is left over at its end.
_MOST_BATCHES = 3


def preload() -> Any:
    """Imports the runtime and returns it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino


class OpenVinoEngine:
    """A model for the CPU, in the precision that its file has and no lower one unless its file asks for it.

    A file of one fixed batch, as those in 8 bits are, is compiled for each size of batch that comes.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        openvino = preload()
        if not path.is_file():
            raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it")
        self._options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = str(threads)
        self._core, self._requests = openvino.Core(), {}
        try:
            self._model = self._core.read_model(str(path))
            self._options["INFERENCE_PRECISION_HINT"] = _precision(self._core, self._model)
            shape = self._model.input(0).get_partial_shape()
            self._fixed: bool = shape[0].is_static
            self.side, self.channels = shape[1].get_length(), shape[3].get_length()
            self.classes = self._model.output(0).get_partial_shape()[1].get_length()
            self._request(shape[0].get_length() if self._fixed else 0)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {openvino.__version__} cannot read {path}: {error}") from error

    def _request(self, batch: int) -> Any:
        """Returns what infers batches of this size; 0 is any."""
        if batch not in self._requests:
            if batch:
                self._model.reshape([batch, self.side, self.side, self.channels])
            while len(self._requests) >= _MOST_BATCHES:
                self._requests.pop(next(iter(self._requests)))
            compiled = self._core.compile_model(self._model, "CPU", self._options)
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        request = self._request(len(images) if self._fixed else 0)
        return np.array(request.infer([np.ascontiguousarray(images)])[0])

    @property
    def computes_in(self) -> str:
        """The precision of the arithmetic, as OpenVINO says it."""
        compiled = next(iter(self._requests.values())).get_compiled_model()
        return compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()


def _precision(core: Any, model: Any) -> str:
    """Returns the precision to compute in: 32 bits unless the file asks for bfloat16 and the processor has it.

    On processors with AMX the default would be bfloat16, whose probabilities differ from the trained network's.
    """
    asked = model.has_rt_info(_PRECISION) and model.get_rt_info(_PRECISION).astype(str) == "bf16"
    return "bf16" if asked and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def open_engine(path: Path, *, threads: int) -> OpenVinoEngine:
    """Opens a model of OpenVINO's, or an ONNX file; raises BundleError where it is missing or unreadable."""
    return OpenVinoEngine(path, threads=threads)
