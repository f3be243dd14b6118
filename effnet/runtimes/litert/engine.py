"""LiteRT, formerly TensorFlow Lite."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from effnet.bundle.model_file import read_model, reason
from effnet.errors import BundleError, MissingExtraError
from effnet.runtimes.base import BaseEngine, joined
from effnet.runtimes.litert import RUNTIME


def preload() -> Any:
    """Import the runtime and return it."""
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "litert") from error
    return interpreter


class LitertEngine(BaseEngine):
    """An interpreter on the CPU, whose XNNPACK kernels compute in the file's precision."""

    runtime = RUNTIME.title

    def __init__(self, path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> None:
        super().__init__(path)
        litert = preload()
        model = read_model(path, digests)
        try:
            # From the bytes, which it keeps: a model without a path cannot refer to other files.
            self.interpreter = litert.Interpreter(model_content=model, num_threads=threads or _usable_cores())
            (image, *more), outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
            self.interpreter.allocate_tensors()
        except Exception as error:  # ValueError, RuntimeError, and errors from decoding its message
            raise BundleError(f"LiteRT cannot read {path}: {reason(error)}. `effnet export` writes it again") from error
        names = [output["name"] for output in outputs]
        self._set_signature(
            _kind_and_shape(image), *map(_kind_and_shape, outputs), names=names, alone=not more, maps_last=True
        )
        self._batch = int(image["shape"][0])
        self._image, self._outputs = image["index"], [output["index"] for output in outputs]
        # An interpreter has one set of feature maps; several threads may call it at once.
        self._lock = Lock()

    def _compute(self, images: np.ndarray) -> np.ndarray:
        return joined(self._infer(images, self._outputs[: len(self.outputs)]))

    def _compute_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        *rows, maps = self._infer(images, self._outputs)
        return joined(rows), np.ascontiguousarray(maps.transpose(0, 3, 1, 2))

    def _infer(self, images: np.ndarray, outputs: Sequence[int]) -> list[np.ndarray]:
        with self._lock:
            if len(images) != self._batch:
                self._batch = 0  # unknown during the change, in case it fails
                self.interpreter.resize_tensor_input(self._image, images.shape)
                self.interpreter.allocate_tensors()
                self._batch = len(images)
            self.interpreter.set_tensor(self._image, images)
            self.interpreter.invoke()
            return [self.interpreter.get_tensor(index) for index in outputs]


def _kind_and_shape(details: Mapping[str, Any]) -> tuple[str, list[object]]:
    return np.dtype(details["dtype"]).name, list(details["shape"])


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1


def open_engine(path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> LitertEngine:
    """Open a TFLite file; raise BundleError if it is missing or unreadable."""
    return LitertEngine(path, threads=threads, digests=digests)
