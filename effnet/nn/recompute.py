"""Activations that are computed twice instead of being kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Return module(x), keeping only `x`: the backward pass computes the rest again, with the same random numbers.

    The second time, what the module writes into its buffers is thrown away, so that norms count a batch once.
    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), scratch_buffers(module)

    return checkpoint(module, x, use_reentrant=False, preserve_rng_state=True, context_fn=contexts)


@contextmanager
def scratch_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, the module's buffers (the statistics of norms) are copies; afterwards they are what they were."""
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
