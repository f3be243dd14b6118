"""TFLite files of networks with random weights."""

from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Format
from effnet.runtimes.litert.int8 import random_int8
from effnet.runtimes.litert.writer import to_tflite
from effnet.weights.folding import random_weights


def write_untrained(spec: ArchSpec, target: Format, folder: Path, *, pair_stem: bool) -> Path:
    """Write `spec` in the precision of `target` with random weights, and return the file's path."""
    path, half = folder / target.file, (0.5,) * spec.in_channels
    if target.precision == "int8":
        path.write_bytes(random_int8(spec))
    else:
        path.write_bytes(to_tflite(spec, random_weights(spec), mean=half, std=half))
    return path
