"""Finds the layer where numbers stop being finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effnet.nn.network import Block, Network
from effnet.nn.recompute import scratch_buffers
from effnet.training.distributed.sync import unsynced


class _Found(Exception):
    """Ends the forward pass at the first layer whose output is not finite."""


def first_not_finite(model: nn.Module, rerun: Callable[[], Tensor]) -> str:
    """Return a clause that names the first layer whose output, or else whose gradient, is not finite.

    `rerun` repeats the forward pass up to the loss; BatchNorm statistics are not changed.
    """
    names = {module: name for name, module in model.named_modules() if not list(module.children())}

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.isfinite().all():
            raise _Found(_output(names[module], module, inputs))

    # The fused kernels call no hooks.
    fused = [module for module in model.modules() if isinstance(module, Network | Block) and module.fused]
    hooks = [module.register_forward_hook(look) for module in names]
    for module in fused:
        module.fused = False
    try:
        with scratch_buffers(model), unsynced(model), torch.no_grad():
            loss = rerun()
    except _Found as found:
        return str(found)
    finally:
        for module in fused:
            module.fused = True
        for hook in hooks:
            hook.remove()
    if not loss.isfinite().all():
        return "every layer's output is finite, but the loss is not"
    return _gradient(model)


def _output(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    bad = [own for own, tensor in module.named_parameters() if not tensor.isfinite().all()]
    if bad:
        return f"the {' and '.join(bad)} of layer {name} had stopped being finite before"
    if any(not tensor.isfinite().all() for tensor in inputs):
        return f"the input of layer {name} is not finite: check the images"
    return f"the output of layer {name} is the first that is not finite"


def _gradient(model: nn.Module) -> str:
    """Return a clause that names the layer nearest to the loss: gradients come from there."""
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    if not bad:
        return "every gradient is finite, but their norm is too large for float32"
    return f"the gradient of {bad[-1]} is the first, from the loss down, that is not finite"
