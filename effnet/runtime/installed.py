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
    "torch": ("torch", "torch", "train"),
}


def missing(runtime: Runtime) -> MissingExtraError | None:
    """Returns the error that says how to install `runtime`, or None where it is installed."""
    module, package, extra = _NEEDED[runtime]
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # a module that stands in sys.modules without a spec
        found = None
    return None if found else MissingExtraError(package, extra)
