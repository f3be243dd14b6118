"""ExecuTorch, whose Python runtime needs torch."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import BundleError, MissingExtraError

# All programs of a process share one pool of threads; a method opened before the pool was replaced must not run.
_LOCK = threading.Lock()
_pools = 0


def preload() -> Any:
    """Imports the runtime and returns its bindings."""
    try:
        import torch  # noqa: F401 (the bindings are linked against it)

        # executorch.runtime offers the same, and imports the whole exporter for one class of warnings first.
        from executorch.extension.pybindings import _C
    except ImportError as error:
        raise MissingExtraError("executorch", "executorch") from error
    return _C


class ExecuTorchEngine:
    """A .pte whose method `forward` takes one picture; a batch is run one after another.

    The number of threads belongs to the process. Engines that differ in it take turns, and each turn opens the file
    anew.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self._library = preload()
        if not path.is_file():
            raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it")
        self._path = path
        self._threads = threads or _cores()
        self._pool = -1
        with _LOCK:
            meta = self._open()
        image, output = meta.input_tensor_meta(0).sizes(), meta.output_tensor_meta(0).sizes()
        if len(image) != 4 or image[0] != 1 or len(output) != 2:
            raise BundleError(
                f"{path} must map image [1, side, side, channels] to probabilities [1, classes]; it maps {image} to "
                f"{output}. `effnet export` writes it anew"
            )
        _, self.side, _, self.channels = image
        self.classes: int = output[1]

    def _open(self) -> Any:
        """Opens the file with the wanted number of threads and returns what `forward` takes and gives."""
        global _pools
        with _silent():
            if self._library._threadpool_get_thread_count() != self._threads:
                self._library._unsafe_reset_threadpool(self._threads)
                _pools += 1
            try:
                # The program must outlive its method.
                self._program = self._library._load_program(str(self._path))
                self._method = self._program.load_method("forward")
            except RuntimeError as error:
                raise BundleError(f"ExecuTorch cannot read {self._path}: {error}") from error
        self._pool = _pools
        return self._program.method_meta("forward")

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        import torch

        pictures = torch.from_numpy(np.ascontiguousarray(images))
        with _LOCK:
            if self._pool != _pools or self._library._threadpool_get_thread_count() != self._threads:
                self._open()
            return np.concatenate([self._method([picture[None]])[0].numpy() for picture in pictures])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps from the terminal how the runtime reads the processor, which no setting turns off."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def open_engine(path: Path, *, threads: int) -> ExecuTorchEngine:
    """Opens a .pte; raises BundleError where it is missing or unreadable."""
    return ExecuTorchEngine(path, threads=threads)
