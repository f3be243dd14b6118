"""Prove a loaded bundle before it serves: its file must still answer as it was proven to."""

from dataclasses import dataclass

import numpy as np

from effnet.bundle.names import ONNX
from effnet.errors import BundleError
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import DEFAULT, FORMATS

_IMAGES = 2
# As `effnet export` demands of a file in fp32: relative to the largest value, if that is above 1.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """How a bundle was proven: on `images` images against `against`; the largest difference of a value."""

    images: int
    against: str
    difference: float


def prove(predictor: Predictor) -> Proven:
    """Return the proof of a bundle; raise BundleError if it fails.

    The answers must be possible ones of its task, the same in two runs and, of a file in fp32, those of the bundle's
    model.onnx in ONNX Runtime, if it has another of that.
    """
    images = probe_images(predictor)
    rows, again = predictor.outputs(images), predictor.outputs(images)
    path = predictor.folder / predictor.format.file
    if not np.array_equal(rows, again):
        raise BundleError(f"{path} must give an image the same answer twice; it did not")
    reference = next(found for found in FORMATS.values() if found.file == ONNX)
    if predictor.format == reference or not (predictor.folder / ONNX).is_file():
        return Proven(images=len(images), against="itself", difference=0.0)
    wanted = Predictor(predictor.folder, threads=1, format=reference.name).outputs(images)
    difference, largest = float(np.abs(rows - wanted).max()), float(np.abs(wanted).max())
    if predictor.format.precision == "fp32" and not difference <= _TOLERANCE * max(1.0, largest):
        raise BundleError(
            f"{path} must answer as {ONNX} does in {DEFAULT}, within {_TOLERANCE:g}; it differs by {difference:.2g} on "
            f"{len(images)} images: `effnet export` writes it again"
        )
    return Proven(images=len(images), against=ONNX, difference=difference)


def probe_images(predictor: Predictor) -> np.ndarray:
    """Return images that a model was not made for, the same on every machine, uint8 [2, height, width, channels]."""
    (height, width), channels = predictor.config.preprocess.size, predictor.config.preprocess.channels
    rows, columns, bands = np.meshgrid(*map(np.arange, (height, width, channels)), indexing="ij")
    smooth = (rows * 255 // height + columns * 127 // width + 40 * bands) % 256
    rough = (rows * 37 + columns * 101 + bands * 59) % 251
    return np.stack([smooth, rough]).astype(np.uint8)[:_IMAGES]
