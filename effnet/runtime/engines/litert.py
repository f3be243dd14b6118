"""LiteRT, once called TensorFlow Lite."""

import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from effnet.errors import BundleError, InputError, MissingExtraError
from effnet.runtime.session import IMAGE


def preload() -> Any:
    """Imports the runtime and returns it."""
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "litert") from error
    return interpreter


class LitertEngine:
    """An interpreter on the CPU, whose XNNPACK kernels compute in the precision that the file has."""

    def __init__(self, path: Path, *, threads: int) -> None:
        litert = preload()
        if not path.is_file():
            raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it")
        try:
            self.interpreter = litert.Interpreter(model_path=str(path), num_threads=threads or _usable_cores())
            images, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"LiteRT cannot read {path}: {error}. `effnet export` writes it anew") from error
        (image, *more), (output, *rest) = images, outputs
        shapes = [int(side) for side in image["shape"]], [int(side) for side in output["shape"]]
        kinds = image["dtype"], output["dtype"]
        if more or rest or len(shapes[0]) != 4 or len(shapes[1]) != 2 or kinds != (np.uint8, np.float32):
            raise BundleError(
                f"{path} must map {IMAGE}, uint8 [batch, side, side, channels], to one output, float32 [batch, width]; "
                f"it maps {kinds[0].__name__} {shapes[0]} to {kinds[1].__name__} {shapes[1]}. `effnet export` writes "
                "it anew"
            )
        (self._batch, self.side, _, self.channels), (_, self.classes) = shapes
        self._image, self._output = image["index"], output["index"]
        # An interpreter has one set of maps; several threads may ask it at once.
        self._lock = Lock()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        # LiteRT would take another side, and compute something with it.
        if images.dtype != np.uint8 or images.shape[1:] != (self.side, self.side, self.channels) or not len(images):
            wanted = f"uint8 [batch, {self.side}, {self.side}, {self.channels}]"
            raise InputError(f"the model takes {wanted}; got {images.dtype} {images.shape}")
        with self._lock:
            if len(images) != self._batch:
                self.interpreter.resize_tensor_input(self._image, images.shape)
                self.interpreter.allocate_tensors()
                self._batch = len(images)
            self.interpreter.set_tensor(self._image, np.ascontiguousarray(images))
            self.interpreter.invoke()
            return self.interpreter.get_tensor(self._output)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1


def open_engine(path: Path, *, threads: int) -> LitertEngine:
    """Opens a TFLite file; raises BundleError where it is missing or unreadable."""
    return LitertEngine(path, threads=threads)
