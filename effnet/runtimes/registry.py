"""Runtimes behind one interface: images in, probabilities out. Each is imported in its own file, when needed."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from effnet.bundle.formats import Runtime, format_of
from effnet.errors import InputError
from effnet.system.bounds import MAX_THREADS

_MODULES: dict[str, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "litert",
    "executorch": "executorch",
}
# A damaged file can crash the process that opens it: see runtimes.probe.
FRAGILE: tuple[Runtime, ...] = ("litert", "executorch")


class Engine(Protocol):
    """An open model file. `side` and `channels` are those of its images, `classes` is the width of its output."""

    side: int
    channels: int
    classes: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, side, side, channels] to float32 [batch, classes].

        Raises InputError for other images, BundleError if the runtime fails.
        """
        ...


def open_engine(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    runtime: Runtime | None = None,
    digests: Mapping[str, str] | None = None,
) -> Engine:
    """Open a model file with `threads` threads (0: one per core); the file's name determines the runtime.

    `digests` are the expected digests of its files (see effnet.bundle.model_file). Raises BundleError if the file is
    missing, has another digest or cannot be read, MissingExtraError if the runtime is not installed, InputError if
    effnet cannot run it. A damaged file of LiteRT or ExecuTorch can crash the process: see runtimes.probe.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads must lie in 0..{MAX_THREADS}; got {threads}")
    module = _module(runtime or format_of(path).runtime)
    return module.open_engine(Path(path), threads=threads, digests=digests)


def preload(runtime: Runtime) -> None:
    """Import a runtime, so that its own memory does not count as a model's."""
    _module(runtime).preload()


def can_run(runtime: Runtime) -> bool:
    """Return whether effnet has an engine for `runtime`, installed or not; it has none for Core ML."""
    return runtime in _MODULES


def _module(runtime: str):
    if runtime not in _MODULES:
        raise InputError(f"effnet can run {', '.join(_MODULES)}; it cannot run {runtime}, only export to it")
    return import_module(f"effnet.runtimes.{_MODULES[runtime]}.engine")
