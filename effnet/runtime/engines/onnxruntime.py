"""ONNX Runtime."""

from pathlib import Path

import numpy as np

from effnet.errors import BundleError
from effnet.runtime.session import IMAGE, open_session


def preload() -> None:
    """Imports the runtime."""
    import onnxruntime  # noqa: F401


class OnnxEngine:
    """A session whose model maps `image` to one output."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self.session = open_session(path, threads=threads)
        (image, *more), (output, *rest) = self.session.get_inputs(), self.session.get_outputs()
        if more or rest or image.name != IMAGE or len(image.shape) != 4 or len(output.shape) != 2:
            raise BundleError(
                f"{path} must map {IMAGE} [batch, side, side, channels] to one output [batch, width]; it maps "
                f"{image.name} {image.shape} to {output.name} {output.shape}. `effnet export` writes it anew"
            )
        self.output: str = output.name
        _, self.side, _, self.channels = image.shape
        self.classes: int = output.shape[1]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        return self.session.run([self.output], {IMAGE: np.ascontiguousarray(images)})[0]


def open_engine(path: Path, *, threads: int) -> OnnxEngine:
    """Opens an ONNX file; raises BundleError where it is missing or unreadable."""
    return OnnxEngine(path, threads=threads)
