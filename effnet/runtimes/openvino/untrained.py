"""Networks with random weights for OpenVINO, which reads ONNX directly."""

from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Format
from effnet.runtimes.onnxruntime import untrained
from effnet.runtimes.untrained import export_untrained


def write_untrained(spec: ArchSpec, target: Format, folder: Path, *, pair_stem: bool) -> Path:
    """Write `spec` in the precision of `target` with random weights, and return the file's path."""
    if target.precision in ("fp32", "int8"):
        return untrained.write_untrained(spec, target, folder, pair_stem=pair_stem)
    return export_untrained(spec, target, folder)
