"""The precision of a training step: float32, or automatic mixed precision in bfloat16 or float16."""

import torch

from effnet.training.recipe.schema import Precision

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
