"""ONNX Runtime sessions, opened alike by prediction, planning and benchmarks."""

from pathlib import Path
from typing import TYPE_CHECKING

from effnet.errors import BundleError, InputError
from effnet.system.bounds import MAX_THREADS

if TYPE_CHECKING:
    import onnxruntime

IMAGE, PROBABILITIES, FEATURES = "image", "probabilities", "features"


def open_session(path: Path, *, threads: int = 1) -> "onnxruntime.InferenceSession":
    """Returns a session on the CPU with `threads` threads (0: one a core).

    Raises BundleError where the file is missing or ONNX Runtime cannot read it.
    """
    import onnxruntime

    options = _options(threads)
    if not path.is_file():
        raise BundleError(f"there must be an ONNX file at {path}; none is there. `effnet export` writes it")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its extension module that have no common root
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} cannot read {path}: {error}") from error


def open_bytes(model: bytes, *, threads: int = 1) -> "onnxruntime.InferenceSession":
    """Returns a session, as open_session does, of a model in memory that effnet itself wrote."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])


def _options(threads: int) -> "onnxruntime.SessionOptions":
    import onnxruntime

    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads must lie in 0..{MAX_THREADS}; got {threads}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options
