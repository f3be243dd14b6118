"""Open ONNX Runtime sessions, in the same way for prediction, planning and benchmarks."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.bundle.model_file import read_model, reason
from effnet.errors import BundleError, InputError
from effnet.runtimes.onnxruntime.external_data import has_external_data
from effnet.runtimes.onnxruntime.hidden_output import hide_output
from effnet.system.bounds import MAX_THREADS
from effnet.system.heap import trim_heap

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

IMAGE = "image"


def open_session(
    path: Path, *, threads: int = 1, digests: Mapping[str, str] | None = None, hidden: str = ""
) -> "onnxruntime.InferenceSession":
    """Return a session on the CPU with `threads` threads (0: one a core).

    An output called `hidden` is not computed. Raises BundleError if the file is missing, does not match `digests` (see
    model_file.read_model), refers to data in other files, or cannot be read by ONNX Runtime.
    """
    import onnxruntime

    check_threads(threads)
    model = read_model(path, digests)
    check_alone(model, path)
    try:
        return open_bytes(hide_output(model, hidden) if hidden else model, threads=threads)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        version = onnxruntime.__version__
        raise BundleError(f"ONNX Runtime {version} cannot read {path}: {reason(error)}") from error


def check_alone(model: bytes, path: Path) -> None:
    """Raise BundleError if the bytes are no ONNX model, or one that refers to data in other files."""
    try:
        outside = has_external_data(model)
    except ValueError as error:
        raise BundleError(f"ONNX Runtime cannot read {path}: {error}") from error
    if outside:
        raise BundleError(
            f"{path} must hold all of its weights; it refers to another file (external data), which could be "
            "any file of this machine: write it again with `effnet export`"
        )


def open_bytes(model: bytes, *, threads: int = 1) -> "onnxruntime.InferenceSession":
    """Return a session, as open_session does, for a model in memory that was checked or written by effnet."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model,
        _options(threads),
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # it would print, and retry the same
        read_config_from_model=0,  # a model must not choose its session's options
    )
    # The Python object would keep the file's bytes for its lifetime; only a change of providers reads them.
    session._model_bytes = None
    trim_heap()
    return session


def shrink_(session: "onnxruntime.InferenceSession", outputs: list[str], images: "np.ndarray") -> None:
    """Run images and free what larger batches took: a session keeps the memory of its largest one."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run(outputs, {IMAGE: images}, options)
    trim_heap()


def _options(threads: int) -> "onnxruntime.SessionOptions":
    import onnxruntime

    check_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, and must not be printed as well
    # Only ONNX is checked for external data: a file that begins like ONNX Runtime's own format must not be read as it.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Otherwise a model from bytes could read files of the working folder; this folder has none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


def check_threads(threads: int) -> None:
    """Raise InputError for an invalid number of threads."""
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads must lie in 0..{MAX_THREADS}; got {threads}")
