"""Programs of networks with random weights; writing them needs torch."""

from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Format
from effnet.runtimes.installed import absent
from effnet.runtimes.record import Need
from effnet.runtimes.untrained import export_untrained


def write_untrained(spec: ArchSpec, target: Format, folder: Path, *, pair_stem: bool) -> Path:
    """Write `spec` in the precision of `target` with random weights, and return the file's path."""
    for name in ("torch", "executorch", "torchao"):
        why = f"{name} (ExecuTorch's programs are written with it)"
        if error := absent(Need(module=name, package=why, extra="executorch")):
            raise error
    return export_untrained(spec, target, folder)
