"""What this computer's processor does with int8."""

import functools
import platform
from pathlib import Path

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})


@functools.cache
def has_vnni() -> bool:
    """Return whether the processor has VNNI, which adds int8 products in int32; False if the system does not say."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "_vnni" in flags.read_text(encoding="utf-8")


def int8_saturates() -> bool:
    """Return whether sums of two int8 products are clipped to 16 bits, as x86 without VNNI does.

    Weights of 7 bits avoid it. Source: ONNX Runtime, "Quantize ONNX models", on reduce_range.
    """
    return platform.machine().lower() in _X86 and not has_vnni()
