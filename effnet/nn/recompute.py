"""Activation recomputation (gradient checkpointing)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Return module(x), keeping only `x`: the backward pass recomputes the rest with the same random numbers.

    The second time, the module's updates of its buffers are discarded, so that BatchNorm counts a batch once.
    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), scratch_buffers(module)

    return checkpoint(module, x, use_reentrant=False, preserve_rng_state=True, context_fn=contexts)


@contextmanager
def scratch_buffers(module: nn.Module) -> Iterator[None]:
    """Replace the module's buffers (BatchNorm statistics) by copies inside the block and restore them afterwards."""
    owners = [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    for part, name, buffer in owners:
        part._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for part, name, buffer in owners:
            part._buffers[name] = buffer
