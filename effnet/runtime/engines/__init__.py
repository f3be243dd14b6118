"""Runtimes behind one face: images in, probabilities out. Each is imported in its own file, when asked for."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from effnet.errors import InputError
from effnet.runtime.formats import Runtime, format_of
from effnet.system.bounds import MAX_THREADS

_MODULES: dict[str, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "litert",
    "executorch": "executorch",
}
# A damaged file can end the process that opens it: see engines.probe.
FRAGILE: tuple[Runtime, ...] = ("litert", "executorch")


class Engine(Protocol):
    """A model's file, opened. `side` and `channels` are its images', `classes` the width of what it returns."""

    side: int
    channels: int
    classes: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, side, side, channels] to float32 [batch, classes].

        Raises InputError for other images, BundleError where the runtime fails.
        """
        ...


def open_engine(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    runtime: Runtime | None = None,
    digests: Mapping[str, str] | None = None,
) -> Engine:
    """Open a model's file with `threads` threads (0: one a core); the runtime is told by the file's name.

    `digests` are those that its files must have (see effnet.runtime.model_file). Raises BundleError where the file is
    missing, is another or cannot be read, MissingExtraError where the runtime is not installed, InputError where this
    machine has no such runtime. A damaged file of LiteRT or ExecuTorch can end the process: see engines.probe.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads must lie in 0..{MAX_THREADS}; got {threads}")
    module = _module(runtime or format_of(path).runtime)
    return module.open_engine(Path(path), threads=threads, digests=digests)


def preload(runtime: Runtime) -> None:
    """Import a runtime, so that what it holds idle does not count as a model's memory."""
    _module(runtime).preload()


def can_run(runtime: Runtime) -> bool:
    """Return whether effnet has an engine for `runtime`, be it installed or not; Core ML's run on a Mac alone."""
    return runtime in _MODULES


def _module(runtime: str):
    if runtime not in _MODULES:
        raise InputError(f"effnet can run {', '.join(_MODULES)}; it cannot run {runtime}, only export to it")
    return import_module(f"effnet.runtime.engines.{_MODULES[runtime]}")
