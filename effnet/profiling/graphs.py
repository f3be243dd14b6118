"""The file that a runtime is given of a network with random weights: written by the exporter that deploys to it."""

import importlib.util
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from effnet.arch.layers import named_layers
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError, MissingExtraError
from effnet.exporting.onnx import to_onnx, write_onnx
from effnet.exporting.targets import write_export
from effnet.exporting.weights import random_weights
from effnet.runtime.formats import FORMATS, Precision, Runtime

# What can be profiled, and in which precisions without data to calibrate on.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
    "litert": ("fp32",),
    "executorch": ("fp32",),
}
_QDQ, _LITERT = "effnet.exporting.qdq_graph", "effnet.exporting.litert"
# How wide the numbers are does not change how long they take; these keep to what 8 bits can tell.
_RANGE = (-4.0, 4.0)


def precisions_of(runtime: Runtime) -> tuple[Precision, ...]:
    """Returns the precisions that `runtime` can be profiled in here; raises InputError where it cannot be at all."""
    if runtime not in PRECISIONS:
        raise InputError(f"effnet can profile {', '.join(PRECISIONS)}; got {runtime!r}")
    found = PRECISIONS[runtime]
    return found if importlib.util.find_spec(_QDQ) else tuple(p for p in found if p != "int8")


def write_graph(spec: ArchSpec, folder: Path, *, runtime: Runtime, precision: Precision) -> Path:
    """Writes `spec` with random weights into `folder` as `runtime` reads it, and returns the file's path.

    Raises InputError for what cannot be profiled, MissingExtraError where a package that writes it is not installed.
    """
    if precision not in precisions_of(runtime):
        raise InputError(f"{runtime} can be profiled in {', '.join(precisions_of(runtime))}; got {precision!r}")
    weights, half = random_weights(spec), (0.5,) * spec.in_channels
    if runtime in ("onnxruntime", "openvino"):  # OpenVINO reads ONNX as its own format
        path = folder / f"model{'.int8' if precision == 'int8' else ''}.onnx"
        if precision == "int8":
            to_qdq = import_module(_QDQ).to_qdq
            write_onnx(to_qdq(spec, weights, made_up_ranges(spec), mean=half, std=half), path)
        else:
            write_onnx(to_onnx(spec, weights, mean=half, std=half), path)
        return path
    if runtime == "litert":
        path = folder / FORMATS["litert"].file
        path.write_bytes(_module(_LITERT).to_tflite(spec, weights, mean=half, std=half))
        return path
    return _export(spec, folder, weights)


def made_up_ranges(spec: ArchSpec) -> dict[str, tuple[float, float]]:
    """Returns a range for the output of every layer that int8 needs one of."""
    return {name: _RANGE for name, layer in named_layers(spec) if layer.op not in ("norm", "linear")}


def _export(spec: ArchSpec, folder: Path, weights: Mapping[str, np.ndarray]) -> Path:
    """Writes through the exporter of bundles, which needs torch for these formats."""
    from effnet.data.preprocess import Preprocess
    from effnet.runtime.config import ModelConfig

    for package in ("torch", "executorch"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"{package} (ExecuTorch's programs are written with it)", "executorch")
    half = (0.5,) * spec.in_channels
    config = ModelConfig(
        arch=spec,
        preprocess=Preprocess(resolution=spec.resolution, mean=half, std=half),
        class_names=tuple(f"class {i}" for i in range(spec.num_classes)),
    )
    return write_export("executorch", folder, config, {**_identity_norms(spec), **weights})


def _identity_norms(spec: ArchSpec) -> dict[str, np.ndarray]:
    state = {}
    for name, layer in named_layers(spec):
        if layer.op == "norm":
            ones, zeros = np.ones(layer.out_channels, np.float32), np.zeros(layer.out_channels, np.float32)
            state |= {f"{name}.weight": ones, f"{name}.running_var": ones}
            state |= {f"{name}.bias": zeros, f"{name}.running_mean": zeros}
    return state


def _module(name: str):
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise InputError("this effnet cannot write LiteRT's files by itself yet: profile onnxruntime") from error
        raise
