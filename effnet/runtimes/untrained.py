"""Files of networks with random weights for a runtime, written by the exporter that deploys to it."""

from pathlib import Path

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import FORMATS, Precision, Runtime
from effnet.errors import InputError
from effnet.runtimes.installed import absent
from effnet.runtimes.onnxruntime import int8 as qdq
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.int8_graph import to_qdq
from effnet.runtimes.onnxruntime.int8_ranges import random_ranges
from effnet.runtimes.write import write_export
from effnet.weights.folding import random_weights, unfold_norms

# Precisions that can be profiled; others differ from these only in the size of the file.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
    "litert": ("fp32", "int8"),
    "executorch": ("fp32", "int8"),
}
_STORES = {"w8": qdq.store_int8, "fp16": qdq.store_half}
# Calibration of random weights needs few images.
_IMAGES = 2


def precisions_of(runtime: Runtime) -> tuple[Precision, ...]:
    """Return the precisions that `runtime` can be profiled in; raise InputError if there are none."""
    if runtime not in PRECISIONS:
        raise InputError(f"a profile's runtime must be one of {', '.join(PRECISIONS)}; got {runtime!r}")
    return PRECISIONS[runtime]


def write_graph(
    spec: ArchSpec, folder: Path, *, runtime: Runtime, precision: Precision, pair_stem: bool = False
) -> Path:
    """Write `spec` with random weights into `folder` in the format of `runtime`, and return the file's path.

    `pair_stem` is as in Quantization.
    Needs no data, and milliseconds for ONNX Runtime, OpenVINO (which reads ONNX directly) and LiteRT. Raises InputError
    if the runtime does not support `precision`, MissingExtraError if a package that writes it is not installed.
    """
    formats = {f.precision: f for f in FORMATS.values() if f.runtime == runtime}
    if runtime not in PRECISIONS or precision not in formats:
        raise InputError(
            f"the precision for {runtime} must be one of {', '.join(formats) or 'none'}; got {precision!r}"
        )
    if runtime == "onnxruntime" or (runtime == "openvino" and precision in ("fp32", "int8")):
        paired = pair_stem and runtime == "onnxruntime"
        return _write_onnx(spec, folder / f"model.{precision}.onnx", precision, paired=paired)
    if runtime == "litert":
        return _write_litert(spec, folder / formats[precision].file, precision)
    return _export(spec, folder, formats[precision].name)


def _write_onnx(spec: ArchSpec, path: Path, precision: Precision, *, paired: bool) -> Path:
    if error := absent("onnx", "onnx", "profile"):
        raise error
    weights, half = random_weights(spec), (0.5,) * spec.in_channels
    if precision == "int8":
        write_onnx(
            to_qdq(spec, weights, random_ranges(spec), mean=half, std=half, pair_stem=paired), path, durable=False
        )
    else:
        write_onnx(to_onnx(spec, weights, mean=half, std=half, parameter=_STORES.get(precision)), path, durable=False)
    return path


def _write_litert(spec: ArchSpec, path: Path, precision: Precision) -> Path:
    from effnet.runtimes.litert.int8 import random_int8
    from effnet.runtimes.litert.writer import to_tflite

    half = (0.5,) * spec.in_channels
    path.write_bytes(
        random_int8(spec) if precision == "int8" else to_tflite(spec, random_weights(spec), mean=half, std=half)
    )
    return path


def _export(spec: ArchSpec, folder: Path, name: str) -> Path:
    """Write with the exporter of bundles; ExecuTorch's needs torch."""
    from effnet.bundle.config import ModelConfig
    from effnet.data.preprocess import Preprocess

    for package in ("torch", "executorch", "torchao") if name.startswith("executorch") else ():
        if error := absent(package, f"{package} (ExecuTorch's programs are written with it)", "executorch"):
            raise error
    half, side = (0.5,) * spec.in_channels, spec.resolution
    config = ModelConfig(
        arch=spec,
        preprocess=Preprocess(resolution=side, mean=half, std=half),
        class_names=tuple(f"class {i}" for i in range(spec.num_classes)),
    )
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, side, side, spec.in_channels), dtype=np.uint8)
    return write_export(name, folder, config, unfold_norms(spec, random_weights(spec)), images=images)
