"""The training forward pass with the fused kernels: the same sums as the plain one, with fewer memory accesses."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.nn.kernels.functions import ACTS, Normed, depthwise, norm_act, norm_act_pool, normed, scale_project
from effnet.nn.kernels.library import load_kernels
from effnet.nn.layers import ChannelAttention, DropPath, SameConv2d

Value: TypeAlias = Tensor | Normed
"""A feature map, or one whose BatchNorm and activation are still to be applied."""


def kernels_fit(x: Tensor) -> bool:
    """Return whether the kernels support this feature map: fp32, on a CPU, channels last."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last)
        and load_kernels() is not None
    )


def unit_fits(unit: nn.Module) -> bool:
    """Return whether a unit is convolution, BatchNorm and at most one activation, which the kernels support."""
    parts = dict(unit.named_children())
    names = list(parts)
    return names[:2] == ["conv", "norm"] and (
        names == ["conv", "norm"] or (names[2:] == ["act"] and type(parts["act"]) in ACTS)
    )


def run_unit(unit: nn.Module, value: Value) -> Normed:
    """Apply the convolution of `unit`; its BatchNorm and activation stay pending for the next operation."""
    conv, norm = unit.conv, unit.norm
    if conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1:
        y = depthwise(value, conv.weight, stride=conv.stride[0], same=isinstance(conv, SameConv2d))
    else:
        y = conv(plain(value))
    return normed(y, norm, unit.act if "act" in unit._modules else None)


def plain(value: Value) -> Tensor:
    """Return the feature map with BatchNorm and activation applied."""
    return value if isinstance(value, Tensor) else norm_act(value)


def run_excited(excite: ChannelAttention, project: nn.Module, value: Value) -> Normed:
    """Apply channel attention and the unit after it."""
    y, pooled = norm_act_pool(value) if isinstance(value, Normed) else (value, value.mean((2, 3)))
    gate = pooled
    for name, part in excite.named_children():
        if name != "pool":
            gate = _linear(part, gate) if isinstance(part, nn.Conv2d) else part(gate)
    return normed(scale_project(y, gate, project.conv.weight), project.norm, None)


def _linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1 x 1 convolution to pooled features [n, c] as a matrix product, without a convolution's overhead."""
    return functional.linear(x, conv.weight.flatten(1), conv.bias)


def block_fits(block: nn.Module) -> bool:
    """Return whether a block is a chain of supported units, with or without an identity shortcut around it."""
    units = [block.get_submodule(name) for name in block.chain]
    if not units or isinstance(units[-1], ChannelAttention):
        return False
    for unit, successor in zip(units, [*units[1:], None], strict=True):
        if isinstance(unit, ChannelAttention):
            if successor is None or not unit_fits(successor) or "act" in successor._modules:
                return False
        elif not unit_fits(unit):
            return False
    return True


def run_block(units: list[nn.Module], value: Value, *, drop_path: DropPath | None) -> Tensor:
    """Apply a block's units in order and, if it has a `drop_path`, add the block's input."""
    if drop_path is not None:
        value = plain(value)
    shortcut = value
    excite = None
    for unit in units:
        if isinstance(unit, ChannelAttention):
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
