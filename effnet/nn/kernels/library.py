"""Load the kernels, compiled once on the training machine."""

import ctypes
import functools
from dataclasses import dataclass

from effnet.nn.kernels.compile import NoLibrary, load_library
from effnet.system.cache import cache_folder


class Shape(ctypes.Structure):
    """The sizes of a depthwise convolution, as depthwise.c declares them."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in ("n", "height", "width", "channels", "out_height", "out_width", "size", "stride", "top", "left")
    )


_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
_SIGNATURES = {
    "effnet_moments": [_POINTER, _LONG, _LONG, _POINTER, _POINTER, _INT],
    "effnet_norm_act": [_POINTER] * 7 + [_LONG] * 3 + [_INT] * 2,
    "effnet_norm_act_sums": [_POINTER] * 11 + [_LONG] * 3 + [_INT] * 2,
    "effnet_norm_act_backward": [_POINTER] * 11 + [_LONG] * 3 + [_INT] * 2,
    "effnet_scale": [_POINTER] * 3 + [_LONG] * 3 + [_INT],
    "effnet_scale_backward": [_POINTER] * 5 + [_LONG] * 3 + [_INT],
    "effnet_depthwise": [Shape] + [_POINTER] * 3 + [_INT],
    "effnet_depthwise_input": [Shape] + [_POINTER] * 3 + [_INT],
    "effnet_depthwise_weight": [Shape] + [_POINTER] * 3 + [_INT],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The loaded library, or None, and a note on a problem, on one line or empty."""

    library: ctypes.CDLL | None = None
    note: str = ""


@functools.cache
def find_kernels() -> Kernels:
    """Return the compiled kernels; they are cached by source, compiler and processor."""
    try:
        library, note = load_library(cache_folder(), tuple(_SIGNATURES))
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
    except (NoLibrary, OSError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        return Kernels(note=f"CPU training is slower, without effnet's fused kernels: {reason}")
    return Kernels(library=library, note=note)


def load_kernels() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None if they are unavailable: no compiler, no OpenMP, no folder for them."""
    return find_kernels().library
