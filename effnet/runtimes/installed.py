"""Check which runtimes are installed, without importing them."""

from importlib.util import find_spec

from effnet.bundle.formats import Runtime
from effnet.errors import MissingExtraError

# The module of each runtime, its package, and the extra that installs the package.
_NEEDED: dict[Runtime, tuple[str, str, str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime", "train"),
    "openvino": ("openvino", "openvino", "openvino"),
    "litert": ("ai_edge_litert", "ai-edge-litert", "litert"),
    "executorch": ("executorch", "executorch", "executorch"),
    "coreml": ("coremltools", "coremltools", "coreml"),
}


# The int8 quantizer of a runtime, if it is a separate package.
_ROUNDING: dict[Runtime, tuple[str, str, str]] = {
    "openvino": ("nncf", "nncf", "compress"),
    "executorch": ("torchao", "torchao", "executorch"),
}


def missing(runtime: Runtime, *, int8: bool = False) -> MissingExtraError | None:
    """Return the error that says how to install `runtime`, or None if it is installed.

    With `int8` the package that writes its int8 files must be installed, too.
    """
    needed = [_NEEDED[runtime], *([_ROUNDING[runtime]] if int8 and runtime in _ROUNDING else [])]
    return next((error for need in needed if (error := absent(*need))), None)


def absent(module: str, package: str, extra: str) -> MissingExtraError | None:
    """Return the error that says how to install a module's package, or None if it is installed."""
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # a module in sys.modules without a spec
        found = None
    return None if found else MissingExtraError(package, extra)
