"""ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from effnet.errors import BundleError
from effnet.runtimes.base import BaseEngine, joined
from effnet.runtimes.onnxruntime import RUNTIME
from effnet.runtimes.onnxruntime.session import IMAGE, open_session

_KINDS = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def preload() -> None:
    """Import the runtime."""
    import onnxruntime  # noqa: F401


class OnnxEngine(BaseEngine):
    """A session whose model maps `image` to its outputs."""

    runtime = RUNTIME.title

    def __init__(self, path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> None:
        super().__init__(path)
        self.session = open_session(path, threads=threads, digests=digests)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if not inputs or not outputs or inputs[0].name != IMAGE:
            names = ", ".join(node.name for node in inputs)[:80]
            raise BundleError(
                f"{path} must map {IMAGE} to an output; it has the inputs [{names}] and {len(outputs)} outputs. "
                "`effnet export` writes it again"
            )
        self._names = [output.name for output in outputs]
        image, *given = ((_KINDS.get(node.type, node.type), node.shape) for node in (inputs[0], *outputs))
        self._set_signature(image, *given, names=self._names, alone=len(inputs) == 1)

    def _compute(self, images: np.ndarray) -> np.ndarray:
        return joined(self.session.run(self._names[: len(self.outputs)], {IMAGE: images}))

    def _compute_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        *rows, maps = self.session.run(self._names, {IMAGE: images})
        return joined(rows), maps


def open_engine(path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> OnnxEngine:
    """Open an ONNX file; raise BundleError if it is missing or unreadable."""
    return OnnxEngine(path, threads=threads, digests=digests)
