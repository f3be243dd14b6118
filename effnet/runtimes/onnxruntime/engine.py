"""ONNX Runtime."""

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.errors import BundleError
from effnet.runtimes.base import BaseEngine, joined
from effnet.runtimes.maps import MAPS
from effnet.runtimes.onnxruntime import RUNTIME
from effnet.runtimes.onnxruntime.session import IMAGE, open_session, shrink_

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_KINDS = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def preload() -> None:
    """Import the runtime."""
    import onnxruntime  # noqa: F401


class OnnxEngine(BaseEngine):
    """A session whose model maps `image` to its outputs.

    Activation maps are computed by a second session, opened at their first use: ONNX Runtime computes all outputs of a
    graph, requested or not.
    """

    runtime = RUNTIME.title

    def __init__(self, path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> None:
        super().__init__(path)
        self._given: dict[str, Any] = {"threads": threads, "digests": digests}
        self.session = open_session(path, hidden=MAPS, **self._given)
        self._mapping: InferenceSession | None = None
        self._opening = Lock()
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if not inputs or not outputs or inputs[0].name != IMAGE:
            names = ", ".join(node.name for node in inputs)[:80]
            raise BundleError(
                f"{path} must map {IMAGE} to an output; it has the inputs [{names}] and {len(outputs)} outputs. "
                "`effnet export` writes it again"
            )
        self._names = [output.name for output in outputs]
        image, *given = ((_KINDS.get(node.type, node.type), node.shape) for node in (inputs[0], *outputs))
        maps = _maps_of(self.session)
        called = [*self._names, *([MAPS] if maps else [])]
        self._set_signature(image, *given, *([("float32", maps)] if maps else []), names=called, alone=len(inputs) == 1)

    def _compute(self, images: np.ndarray) -> np.ndarray:
        return joined(self.session.run(self._names, {IMAGE: images}))

    def shrink_(self, images: np.ndarray) -> None:
        """Run images, and free what larger batches took."""
        shrink_(self.session, self._names, images)

    def _compute_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._opening:
            self._mapping = self._mapping or open_session(self.path, **self._given)
        *rows, maps = self._mapping.run([*self._names, MAPS], {IMAGE: images})
        return joined(rows), maps


def _maps_of(session: "InferenceSession") -> list[object]:
    """Return the shape of the activation maps that the model's metadata declare; empty if there are none."""
    try:
        found = json.loads(session.get_modelmeta().custom_metadata_map.get(MAPS, "[]"))
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def open_engine(path: Path, *, threads: int, digests: Mapping[str, str] | None = None) -> OnnxEngine:
    """Open an ONNX file; raise BundleError if it is missing or unreadable."""
    return OnnxEngine(path, threads=threads, digests=digests)
