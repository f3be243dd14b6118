"""Compiles the kernels on the machine that trains, once, and loads them."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from effnet.data.fetching import cache_folder

_SOURCES = ("kernels.c", "depthwise.c")
# No -ffast-math: it would change how the whole process treats denormal numbers.
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
_CONTRACT = "-ffp-contract=fast"
_SECONDS = 120


class Shape(ctypes.Structure):
    """The sizes of a depthwise convolution, as depthwise.c declares them."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in ("n", "height", "width", "channels", "out_height", "out_width", "size", "stride", "top", "left")
    )


@functools.cache
def load_kernels() -> ctypes.CDLL | None:
    """Returns the compiled kernels, or None where they cannot be had: no compiler, no OpenMP, no place for them.

    They are kept in the cache folder under a name that changes with source, compiler and processor.
    """
    compiler = _compiler()
    if compiler is None or sys.platform == "win32":  # pointers and longs differ in size there
        return None
    folder = Path(__file__).parent
    source = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SOURCES)
    try:
        path = _compiled(source, compiler, cache_folder() / "kernels")
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None


def _compiler() -> str | None:
    named = os.environ.get("CC")
    return next((found for name in (named, "cc", "gcc", "clang") if name and (found := shutil.which(name))), None)


def _compiled(source: str, compiler: str, folder: Path) -> Path:
    """Returns the library of this source for this processor, compiling it where the cache has none."""
    flags = [*_FLAGS, _CONTRACT, "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"]
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=_SECONDS, check=True).stdout
    identity = (source.encode(), version, " ".join(flags).encode(), _processor())
    path = folder / f"{hashlib.sha256(b'|'.join(identity)).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        text, library = Path(scratch) / "kernels.c", Path(scratch) / "kernels.so"
        text.write_text(source, encoding="utf-8")
        subprocess.run(
            [compiler, *flags, str(text), "-o", str(library), "-lm"], capture_output=True, timeout=_SECONDS, check=True
        )
        os.replace(library, path)  # other processes may be at it too
    return path


def _processor() -> bytes:
    """Returns what tells this processor from others: a library made for one may be illegal on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor().encode()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)})).encode()


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, long, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    signatures = {
        "effnet_moments": [pointer, long, long, pointer, pointer, number],
        "effnet_norm_act": [pointer] * 7 + [long] * 3 + [number] * 2,
        "effnet_norm_act_sums": [pointer] * 11 + [long] * 3 + [number] * 2,
        "effnet_norm_act_backward": [pointer] * 11 + [long] * 3 + [number] * 2,
        "effnet_scale": [pointer] * 3 + [long] * 3 + [number],
        "effnet_scale_backward": [pointer] * 5 + [long] * 3 + [number],
        "effnet_depthwise": [Shape] + [pointer] * 3 + [number],
        "effnet_depthwise_input": [Shape] + [pointer] * 3 + [number],
        "effnet_depthwise_weight": [Shape] + [pointer] * 3 + [number],
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    return library
