"""How planning measures a network that nobody has trained."""

from functools import lru_cache
from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.exporting.onnx import to_onnx, write_onnx
from effnet.exporting.weights import random_weights
from effnet.fitting.candidates import Candidate
from effnet.fitting.target import Target
from effnet.measure.timing import Timing, time_model
from effnet.runtime.formats import Format


def measure_random(candidate: Candidate, scratch: Path, *, target: Target, threads: int) -> Timing:
    """Exports a candidate with random weights into `scratch` and measures the file in the target's runtime."""
    path = write_random(candidate.spec, target.format(candidate.precision), scratch)
    return time_model(path, threads=threads, rounds=3, seconds=0.1)


def write_random(spec: ArchSpec, target: Format, scratch: Path) -> Path:
    """Writes `spec` with random weights in a format, without any training or calibration, and returns the path."""
    half = (0.5,) * spec.in_channels
    path = scratch / target.file
    write_onnx(to_onnx(spec, random_weights(spec), mean=half, std=half), path)
    return path


@lru_cache(maxsize=256)
def training_speed(spec: ArchSpec) -> float:
    """Returns training images per second of `spec`, measured once."""
    from effnet.training.speed import train_speed

    return train_speed(spec)
