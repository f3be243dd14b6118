"""The toy runtime's engine."""

import io

import numpy as np

from effnet.bundle.model_file import read_model, reason
from effnet.errors import BundleError
from effnet.runtimes.base import BaseEngine
from toy_runtime import RUNTIME


def preload():
    """Import the runtime."""
    import onnxruntime

    return onnxruntime


class ToyEngine(BaseEngine):
    """A session of the graph in the file."""

    runtime = RUNTIME.title

    def __init__(self, path, *, threads, digests=None):
        super().__init__(path)
        library = preload()
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            graph = np.load(io.BytesIO(read_model(path, digests)))["onnx"].tobytes()
            self._session = library.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(f"{RUNTIME.title} cannot read {path}: {reason(error)}") from error
        (image,), (output,) = self._session.get_inputs(), self._session.get_outputs()
        self._set_signature(("uint8", image.shape), ("float32", output.shape))

    def _compute(self, images):
        return self._session.run(None, {"image": images})[0]


def open_engine(path, *, threads, digests=None):
    """Open the toy's file; raise BundleError if it is missing or unreadable."""
    return ToyEngine(path, threads=threads, digests=digests)
