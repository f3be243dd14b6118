"""OpenVINO."""

import codecs
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.model_file import read_model, reason
from effnet.errors import BundleError, InputError, MissingExtraError
from effnet.runtimes.base import BaseEngine, joined
from effnet.runtimes.onnxruntime.session import check_alone
from effnet.runtimes.openvino import RUNTIME

# The metadata entry that effnet.runtimes.openvino.writer writes.
_PRECISION = ["effnet", "inference_precision"]

# Each compiled batch size takes its own memory; a run has one size, and a smaller one for its last batch.
_MOST_BATCHES = 3

# The process that used it first.
_process = 0

_KINDS = {"u8": "uint8", "f32": "float32"}


def preload() -> Any:
    """Import the runtime and return it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino


class OpenVinoEngine(BaseEngine):
    """A model for the CPU, in its file's precision and no lower one unless the file's metadata request it.

    A file with a fixed batch, as int8 files have, is compiled for each batch size in use.
    """

    runtime = RUNTIME.title

    def __init__(self, path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> None:
        super().__init__(path)
        openvino = preload()
        _refuse_after_fork()
        self._options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = str(threads)
        files = _read(path, digests)
        try:
            self._core = openvino.Core()
            self._requests: dict[Any, Any] = {}
            self._model = self._core.read_model(*files)
            del files
            self._options["INFERENCE_PRECISION_HINT"] = _precision(self._core, self._model)
            (image, *more), outputs = self._model.inputs, self._model.outputs
            names = [output.get_any_name() if output.get_names() else "" for output in outputs]
            self._set_signature(_kind_and_shape(image), *map(_kind_and_shape, outputs), names=names, alone=not more)
            batch = image.get_partial_shape()[0]
            self._fixed: bool = batch.is_static
            self._request(batch.get_length() if self._fixed else 0)
        except BundleError:
            raise
        except Exception as error:  # RuntimeError, or UnicodeDecodeError if its message contains the file's bytes
            raise BundleError(f"OpenVINO {openvino.__version__} cannot read {path}: {reason(error)}") from error

    def _request(self, batch: int, *, maps: bool = False) -> Any:
        """Return the inference request for batches of this size, 0 for any, with the activation maps if `maps`."""
        if (batch, maps) not in self._requests:
            model = self._model if maps or self.maps is None else _without_maps(self._model)
            if batch:
                model.reshape([batch, *self.size, self.channels])
            while len(self._requests) >= _MOST_BATCHES:
                self._requests.pop(next(iter(self._requests)))
            compiled = self._core.compile_model(model, "CPU", self._options)
            self._requests[batch, maps] = compiled.create_infer_request()
        return self._requests[batch, maps]

    def _compute(self, images: np.ndarray) -> np.ndarray:
        return np.array(joined(self._infer(images, maps=False)))

    def _compute_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        *rows, maps = self._infer(images, maps=True)
        return np.array(joined(rows)), np.array(maps)

    def _infer(self, images: np.ndarray, *, maps: bool) -> list[np.ndarray]:
        """Return the outputs, in memory that the next inference overwrites."""
        found = self._request(len(images) if self._fixed else 0, maps=maps).infer([images])
        return [found[number] for number in range(len(found))]

    @property
    def computes_in(self) -> str:
        """The precision of the arithmetic, as reported by OpenVINO."""
        compiled = next(iter(self._requests.values())).get_compiled_model()
        return compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()


def _without_maps(model: Any) -> Any:
    """Return a copy of a model whose last output, the activation maps, is not computed."""
    copy = model.clone()
    copy.remove_result(copy.get_results()[-1])
    return copy


def _refuse_after_fork() -> None:
    """Raise InputError in a process forked after the first use: it lacks OpenVINO's threads and would wait for ever.

    A spawned process, or one forked before the first use, is fine.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise InputError(
            "OpenVINO must not be used in a process forked after its parent used it; spawn the process "
            '(multiprocessing.get_context("spawn")), or fork before the first prediction'
        )


def _read(path: Path, digests: Mapping[str, str] | None) -> tuple[bytes, bytes]:
    """Return the graph and the weights (empty for ONNX) for OpenVINO to read.

    OpenVINO detects the kind of a model from its content, whatever its name, and an ONNX model can refer to other
    files.
    """
    model = read_model(path, digests)
    if path.suffix == ".onnx":
        check_alone(model, path)
        return model, b""
    if not model.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"<?xml", b"<net")):
        raise BundleError(f"an OpenVINO graph must be XML; {path} is not: `effnet export` writes it again")
    return model, read_model(path.with_suffix(".bin"), digests)


def _kind_and_shape(port: Any) -> tuple[str, list[object]]:
    kind = port.get_element_type().get_type_name()
    shape = [side.get_length() if side.is_static else "?" for side in port.get_partial_shape()]
    return _KINDS.get(kind, kind), shape


def _precision(core: Any, model: Any) -> str:
    """Return the precision to compute in: fp32 unless the file requests bfloat16 and the processor has it.

    On processors with AMX the default would be bfloat16, whose probabilities differ from the trained network's.
    """
    asked = model.has_rt_info(_PRECISION) and model.get_rt_info(_PRECISION).astype(str) == "bf16"
    return "bf16" if asked and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def open_engine(path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> OpenVinoEngine:
    """Open an OpenVINO model or an ONNX file; raise BundleError if it is missing or unreadable."""
    return OpenVinoEngine(path, threads=threads, digests=digests)
