"""The training device and its precision, and the transfer of images to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from effnet.data.preprocess import Preprocess
from effnet.system.heap import keep_freed
from effnet.system.machine import resident_mb
from effnet.training.recipe.schema import Precision

# float32, or automatic mixed precision in bfloat16 or float16.
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Flush denormal numbers to zero and make glibc keep freed memory for the next step, inside the context.

    Denormals slow a CPU step down many times and do not matter for training; torch's own threads inherit the flag from
    the thread that starts them. Memory that is kept need not be allocated and cleared again.
    """
    keep_freed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def pick_device() -> torch.device:
    """Return the fastest available device: CUDA, Apple's MPS, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory_mb(device: torch.device) -> float:
    """Return CUDA's peak allocated memory or, elsewhere, the resident memory of the process, in 10^6 bytes."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else resident_mb()


def to_input(images: np.ndarray, preprocess: Preprocess, device: torch.device) -> Tensor:
    """Return uint8 [batch, R, R, C] as normalised float [batch, C, R, R], channels last, on `device`."""
    return normalized(to_pixels(images, device), preprocess)


def to_pixels(images: np.ndarray, device: torch.device) -> Tensor:
    """Return uint8 [batch, R, R, C] as uint8 [batch, C, R, R], channels last, on `device`."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True).permute(0, 3, 1, 2)


def normalized(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return uint8 [batch, C, R, R] as normalised float of that shape, channels last; feature maps stay as they are."""
    if pixels.is_floating_point():
        return pixels.float()
    x = pixels.permute(0, 2, 3, 1).contiguous().float().div_(255)
    # A whole row at once: three values alone would make loops of three steps.
    width = x.shape[2]
    mean, std = (torch.tensor(values, device=x.device).repeat(width) for values in (preprocess.mean, preprocess.std))
    x.view(*x.shape[:2], -1).sub_(mean).div_(std)
    return x.permute(0, 3, 1, 2)


def pixels_of(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Return the uint8 images [batch, C, R, R] that `normalized` made these of."""
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (preprocess.mean, preprocess.std)
    )
    return ((images * std + mean) * 255).round_().clamp_(0, 255).to(torch.uint8)


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of convolutions and matrix products, None for float32.

    "auto" is bfloat16 on a GPU whose hardware supports it, float16 on an older one, and float32 elsewhere: on a CPU,
    even one with bfloat16 units, the depthwise convolutions of these networks lose more time than the others gain.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def make_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Return the gradient scaler, which keeps small float16 gradients from vanishing; disabled for other types."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
