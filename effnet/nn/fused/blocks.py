"""The forward pass of training through the fused kernels: the same sums as the plain one, in fewer trips to memory."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.nn.fused.functions import ACTS, Normed, depthwise, norm_act, norm_act_pool, normed, scale_project
from effnet.nn.fused.library import load_kernels
from effnet.nn.layers import DropPath, SameConv2d, SqueezeExcite

Value: TypeAlias = Tensor | Normed
"""A map, or one whose norm and activation are still to be applied."""


def kernels_fit(x: Tensor) -> bool:
    """Return whether the kernels can work on this map: floats of 32 bits in the memory of a CPU, channels last."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last)
        and load_kernels() is not None
    )


def unit_fits(unit: nn.Module) -> bool:
    """Return whether a unit is convolution, norm and at most an activation that the kernels know."""
    parts = dict(unit.named_children())
    names = list(parts)
    return names[:2] == ["conv", "norm"] and (
        names == ["conv", "norm"] or (names[2:] == ["act"] and type(parts["act"]) in ACTS)
    )


def run_unit(unit: nn.Module, value: Value) -> Normed:
    """Apply convolution and norm of `unit`; its activation, and often its norm, wait for what comes next."""
    conv, norm = unit.conv, unit.norm
    if conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1:
        y = depthwise(value, conv.weight, stride=conv.stride[0], same=isinstance(conv, SameConv2d))
    else:
        y = conv(plain(value))
    return normed(y, norm, unit.act if "act" in unit._modules else None)


def plain(value: Value) -> Tensor:
    """Return the map with norm and activation applied."""
    return value if isinstance(value, Tensor) else norm_act(value)


def run_excited(excite: SqueezeExcite, project: nn.Module, value: Value) -> Normed:
    """Apply squeeze-and-excitation and the unit after it."""
    y, pooled = norm_act_pool(value) if isinstance(value, Normed) else (value, value.mean((2, 3)))
    gate = _linear(excite.reduce, pooled)
    gate = _linear(excite.expand, excite.act(gate))
    if "gate" in excite._modules:
        gate = excite.gate(gate)
    return normed(scale_project(y, gate, project.conv.weight), project.norm, None)


def _linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1 x 1 convolution to pooled maps [n, c]: a matrix product, without the detours of a convolution."""
    return functional.linear(x, conv.weight.flatten(1), conv.bias)


def block_fits(block: nn.Module) -> bool:
    """Return whether a block is a chain of units that the kernels know, with or without a plain shortcut around it."""
    units = [block.get_submodule(name) for name in block.body]
    if block.tail or "shortcut" in block._modules or not units or isinstance(units[-1], SqueezeExcite):
        return False
    for unit, successor in zip(units, [*units[1:], None], strict=True):
        if isinstance(unit, SqueezeExcite):
            if successor is None or not unit_fits(successor) or "act" in successor._modules:
                return False
        elif not unit_fits(unit):
            return False
    return True


def run_block(units: list[nn.Module], value: Value, *, drop_path: DropPath | None) -> Tensor:
    """Apply a block's units in order and, where it has a `drop_path`, adds what came in."""
    if drop_path is not None:
        value = plain(value)
    shortcut = value
    excite = None
    for unit in units:
        if isinstance(unit, SqueezeExcite):
            excite = unit
            continue
        value = run_unit(unit, value) if excite is None else run_excited(excite, unit, value)
        excite = None
    assert isinstance(value, Normed)
    if drop_path is None:
        return norm_act(value)
    return norm_act(value, keep=drop_path.keep(value.map), shortcut=shortcut)


def run_head(head: nn.Module, x: Tensor) -> Tensor:
    """Return the pooled features [n, c] after the head."""
    return norm_act_pool(run_unit(head, x))[1]
