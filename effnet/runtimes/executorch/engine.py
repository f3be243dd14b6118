"""ExecuTorch, whose Python runtime needs torch."""

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.model_file import read_model, reason, sha256
from effnet.errors import BundleError, MissingExtraError
from effnet.runtimes.base import BaseEngine, joined
from effnet.runtimes.executorch import RUNTIME, TENSORS

# All programs of a process share one thread pool; a method opened before the pool was replaced must not run.
_lock = threading.Lock()
_pools = 0

# The codes of torch's data types.
_KINDS = {0: "uint8", 6: "float32"}


def preload() -> Any:
    """Import the runtime and return its bindings."""
    try:
        import torch  # noqa: F401 (the bindings are linked against it)

        # executorch.runtime offers the same, but imports the whole exporter first, for one warning class.
        from executorch.extension.pybindings import _C
    except ImportError as error:
        raise MissingExtraError("executorch", "executorch") from error
    return _C


class ExecuTorchEngine(BaseEngine):
    """A .pte whose method `forward` takes one image; a batch is run image by image.

    The number of threads is global to the process. Engines with different numbers take turns, and each turn reopens the
    file.
    """

    runtime = RUNTIME.title

    def __init__(self, path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> None:
        super().__init__(path)
        self._library = preload()
        self._threads = threads or _cores()
        self._pool = -1
        self._digests = {path.name: sha256(read_model(path, digests))}
        with _lock:
            meta = self._open()
        try:
            image = meta.input_tensor_meta(0)
            outputs = [_kind_and_shape(meta.output_tensor_meta(number)) for number in range(meta.num_outputs())]
            alone = meta.num_inputs() == 1
            names = self._names() if len(outputs) > 1 else [""]
        except Exception as error:
            raise BundleError(f"ExecuTorch cannot read {path}: {reason(error)}") from error
        self._set_signature(_kind_and_shape(image), *outputs, names=names, alone=alone)
        if image.sizes()[0] != 1:
            raise BundleError(f"{path} must take one image at a time; it takes {image.sizes()[0]}")

    def _open(self) -> Any:
        """Open the file with the engine's number of threads and return the metadata of `forward`."""
        global _pools
        # ExecuTorch frees bytes that it reads from a path, but not bytes passed to it: a large model would be kept
        # twice. So it reads the file itself, which must still be the one that was checked.
        read_model(self.path, self._digests)
        with _silent():
            if self._library._threadpool_get_thread_count() != self._threads:
                self._library._unsafe_reset_threadpool(self._threads)
                _pools += 1
            try:
                # The program must outlive its method.
                self._program = self._library._load_program(
                    str(self.path), program_verification=self._library.Verification.InternalConsistency
                )
                self._method = self._program.load_method("forward")
                meta = self._program.method_meta("forward")
            except Exception as error:
                raise BundleError(f"ExecuTorch cannot read {self.path}: {reason(error)}") from error
        self._pool = _pools
        return meta

    def _names(self) -> list[str]:
        """Return the names of several outputs, which a program itself does not have."""
        return [str(name) for name in json.loads(self._program.load_method(TENSORS)([])[0])]

    def _compute(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([joined(found[: len(self.outputs)]) for found in self._infer(images)])

    def _compute_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self._infer(images)
        return np.concatenate([joined(rows) for *rows, _ in found]), np.concatenate([maps for *_, maps in found])

    def _infer(self, images: np.ndarray) -> list[list[np.ndarray]]:
        """Return the outputs of each image."""
        import torch

        pixels = torch.from_numpy(images)
        with _lock:
            if self._pool != _pools or self._library._threadpool_get_thread_count() != self._threads:
                self._open()
            return [[part.numpy().copy() for part in self._method([image[None]])] for image in pixels]


def _kind_and_shape(meta: Any) -> tuple[str, list[object]]:
    return _KINDS.get(meta.dtype(), f"type {meta.dtype()}"), list(meta.sizes())


def _after_fork() -> None:
    """Give a forked process its own lock: another thread may have held the inherited one."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def _silent() -> Iterator[None]:
    """Hide the runtime's messages about the processor, which no setting turns off."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def open_engine(path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> ExecuTorchEngine:
    """Open a .pte; raise BundleError if it is missing or unreadable."""
    return ExecuTorchEngine(path, threads=threads, digests=digests)
