"""In how many bits a step computes."""

import torch

from effnet.training.recipe import Precision

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return what convolutions and products compute in, None for float32.

    "auto" is bfloat16 on a GPU whose hardware has it, float16 on an older one, and float32 elsewhere: on a CPU, even
    one with units for bfloat16, the depthwise convolutions of these networks lose more by it than the others gain.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def make_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps the small gradients of float16 from vanishing; it does nothing for other types."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
