"""ONNX files of networks with random weights."""

from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Format
from effnet.runtimes.installed import absent
from effnet.runtimes.onnxruntime import int8 as qdq
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.int8_graph import to_qdq
from effnet.runtimes.onnxruntime.int8_ranges import random_ranges
from effnet.runtimes.record import Need
from effnet.weights.folding import random_weights

_WRITER = Need(module="onnx", package="onnx", extra="profile")
_STORES = {"w8": qdq.store_int8, "fp16": qdq.store_half}


def write_untrained(spec: ArchSpec, target: Format, folder: Path, *, pair_stem: bool) -> Path:
    """Write `spec` in the precision of `target` with random weights and ranges, and return the file's path."""
    if error := absent(_WRITER):
        raise error
    path, weights, half = folder / f"model.{target.precision}.onnx", random_weights(spec), (0.5,) * spec.in_channels
    if target.precision == "int8":
        model = to_qdq(spec, weights, random_ranges(spec), mean=half, std=half, pair_stem=pair_stem)
    else:
        model = to_onnx(spec, weights, mean=half, std=half, parameter=_STORES.get(target.precision))
    write_onnx(model, path, durable=False)
    return path
