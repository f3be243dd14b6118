"""Which runtimes are installed, told without importing them."""

from importlib.util import find_spec

from effnet.errors import MissingExtraError
from effnet.runtime.formats import Runtime

# The module that a runtime is imported as, the package that has it, and the extra that brings the package.
_NEEDED: dict[Runtime, tuple[str, str, str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime", "train"),
    "openvino": ("openvino", "openvino", "openvino"),
    "litert": ("ai_edge_litert", "ai-edge-litert", "litert"),
    "executorch": ("executorch", "executorch", "executorch"),
    "coreml": ("coremltools", "coremltools", "coreml"),
}


# What rounds to 8 bits for a runtime, where that is a package of its own.
_ROUNDING: dict[Runtime, tuple[str, str, str]] = {
    "openvino": ("nncf", "nncf", "compress"),
    "executorch": ("torchao", "torchao", "executorch"),
}


def missing(runtime: Runtime, *, int8: bool = False) -> MissingExtraError | None:
    """Return the error that says how to install `runtime`, or None where it is installed.

    With `int8` what writes its 8-bit files counts, too.
    """
    needed = [_NEEDED[runtime], *([_ROUNDING[runtime]] if int8 and runtime in _ROUNDING else [])]
    return next((error for need in needed if (error := absent(*need))), None)


def absent(module: str, package: str, extra: str) -> MissingExtraError | None:
    """Return the error that says how to install a module's package, or None where it is installed."""
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # a module that stands in sys.modules without a spec
        found = None
    return None if found else MissingExtraError(package, extra)
