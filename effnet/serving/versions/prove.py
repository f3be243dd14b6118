"""Prove a loaded bundle before it serves: its file must still answer as it was proven to."""

from dataclasses import dataclass

import numpy as np

from effnet.bundle.names import ONNX, PROOF
from effnet.errors import BundleError
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.recorded import kept_values, probe_images, recorded_answers
from effnet.runtimes.registry import FORMATS

# Relative to the largest value, if that is above 1. In fp32 as `effnet export` demands of a file; int8 of one processor
# differs from that of another by more, but a damaged network by much more.
_TOLERANCE, _ROUNDED = 1e-3, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """How a bundle was proven: on `images` images against `against`; the largest difference of a value."""

    images: int
    against: str
    difference: float


def prove(predictor: Predictor) -> Proven:
    """Return the proof of a bundle; raise BundleError if it fails.

    Its answers to the computed images must be possible ones of its task, and those in proof.json. A bundle without
    these is compared with its model.onnx, if it deploys another file; else it must answer the same twice.
    """
    images = probe_images(predictor)
    rows = predictor.outputs(images)
    wanted = recorded_answers(predictor.folder, predictor.format)
    if wanted is not None:
        return _compared(predictor, kept_values(rows), wanted, against=PROOF)
    reference = next(found for found in FORMATS.values() if found.file == ONNX)
    if predictor.format != reference and (predictor.folder / ONNX).is_file():
        truth = Predictor(predictor.folder, threads=1, format=reference.name).outputs(images)
        return _compared(predictor, rows, truth, against=ONNX)
    return _compared(predictor, rows, predictor.outputs(images), against="itself")


def _compared(predictor: Predictor, rows: np.ndarray, wanted: np.ndarray, *, against: str) -> Proven:
    path = predictor.folder / predictor.format.file
    if rows.shape != wanted.shape:
        raise BundleError(f"{path} must answer as {against} does, {list(wanted.shape)}; it answers {list(rows.shape)}")
    difference, largest = float(np.abs(rows - wanted).max()), float(np.abs(wanted).max())
    most = (_TOLERANCE if predictor.format.precision == "fp32" else _ROUNDED) * max(1.0, largest)
    if not difference <= most:
        raise BundleError(
            f"{path} must answer as {against} does, within {most:.3g}; it differs by {difference:.3g} on {len(rows)} "
            "images: the runtime or the processor computes otherwise, or the file is another. `effnet export` writes "
            "it again"
        )
    return Proven(images=len(rows), against=against, difference=difference)
