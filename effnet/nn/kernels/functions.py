"""The fused kernels as autograd functions; feature maps are float32 [n, channels, h, w], channels last.

For the backward pass they save only the feature map before a BatchNorm: the norm, its activation and the input of a
depthwise convolution are recomputed from it.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from effnet.arch.layers import output_side, same_padding
from effnet.nn.kernels.library import Shape, load_kernels

ACTS: dict[type[nn.Module], int] = {nn.SiLU: 1, nn.ReLU: 2, nn.ReLU6: 3, nn.Hardswish: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normed:
    """A feature map [n, c, h, w] whose BatchNorm and activation are still to be applied.

    `mean` and `inv` [c] are the statistics that the BatchNorm uses: those of the batch unless `frozen`.
    """

    map: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    inv: Tensor
    act: int
    frozen: bool


def _kernels() -> ctypes.CDLL:
    library = load_kernels()
    assert library is not None
    return library


def _call(name: str, *arguments: Any) -> None:
    if not getattr(_kernels(), name)(*arguments, torch.get_num_threads()):
        raise MemoryError(f"no memory is left for {name}")


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _sizes(x: Tensor) -> tuple[int, int, int]:
    n, channels, height, width = x.shape
    return n, height * width, channels


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _laid_out(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)


def normed(x: Tensor, norm: nn.BatchNorm2d, act: nn.Module | None) -> Normed:
    """Return `x` with BatchNorm and activation pending; update the running statistics in training mode."""
    x = _laid_out(x)
    number = 0 if act is None else ACTS[type(act)]
    if not norm.training:
        mean, inv = norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
        return Normed(map=x, weight=norm.weight, bias=norm.bias, mean=mean, inv=inv, act=number, frozen=True)
    n, rows, channels = _sizes(x)
    mean, var = x.new_empty(channels), x.new_empty(channels)
    _call("effnet_moments", _at(x), n * rows, channels, _at(mean), _at(var))
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * (n * rows / max(1, n * rows - 1)), norm.momentum)
        inv = torch.rsqrt(var + norm.eps)
    return Normed(map=x, weight=norm.weight, bias=norm.bias, mean=mean, inv=inv, act=number, frozen=False)


def norm_act(value: Normed, *, keep: Tensor | None = None, shortcut: Tensor | None = None) -> Tensor:
    """Return act(norm(map)) * keep[n] + shortcut."""
    return _NormAct.apply(
        value.map, value.weight, value.bias, value.mean, value.inv, value.act, value.frozen, keep,
        None if shortcut is None else _laid_out(shortcut), False,
    )[0]  # fmt: skip


def norm_act_pool(value: Normed) -> tuple[Tensor, Tensor]:
    """Return act(norm(map)) and its mean over height and width [n, c]."""
    return _NormAct.apply(
        value.map, value.weight, value.bias, value.mean, value.inv, value.act, value.frozen, None, None, True
    )


def depthwise(value: Normed | Tensor, weight: Tensor, *, stride: int, same: bool) -> Tensor:
    """Return the depthwise convolution of act(norm(map)), or of a plain map, with `weight` [c, 1, k, k].

    It is padded by k // 2 or, if `same`, by TensorFlow's rule.
    """
    if isinstance(value, Tensor):
        return _Depthwise.apply(_laid_out(value), weight, stride, same)
    return _NormActDepthwise.apply(
        value.map, value.weight, value.bias, value.mean, value.inv, value.act, value.frozen, weight, stride, same
    )


def scale_project(x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    """Return the 1 x 1 convolution with `weight` [o, c, 1, 1] of x [n, c, h, w] times gate [n, c]."""
    return _ScaleProject.apply(x, gate.contiguous(), weight)


def _apply(
    saved: tuple[Tensor, ...],
    act: int,
    *,
    keep: Tensor | None = None,
    shortcut: Tensor | None = None,
    pool: Tensor | None = None,
) -> Tensor:
    x, weight, bias, mean, inv = saved
    scale = inv * weight
    shift = bias - mean * scale
    y = _like(x)
    _call(
        "effnet_norm_act",
        *map(_at, (x, scale, shift, keep, shortcut, y, pool)), *_sizes(x), act,
    )  # fmt: skip
    return y


def _norm_act_backward(
    saved: tuple[Tensor, ...],
    act: int,
    frozen: bool,
    *,
    dy: Tensor | None,
    dpool: Tensor | None = None,
    keep: Tensor | None = None,
    dx: Tensor,
    activated: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the map (written to `dx`), of the BatchNorm's weight and of its bias.

    `dx` may be `dy`. If `activated` is given, it is filled with the activation's output.
    """
    x, weight, bias, mean, inv = saved
    inputs = (x, dy, dpool, keep, mean, inv, weight, bias)
    dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
    _call("effnet_norm_act_sums", *map(_at, (*inputs, dweight, dbias, activated)), *_sizes(x), act)
    sums = (None, None) if frozen else (dweight, dbias)
    _call("effnet_norm_act_backward", *map(_at, (*inputs, *sums, dx)), *_sizes(x), act)
    return dx, dweight, dbias


class _NormAct(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inv, act, frozen, keep, shortcut, pooled):
        pool = x.new_empty(x.shape[:2]) if pooled else None
        y = _apply((x, weight, bias, mean, inv), act, keep=keep, shortcut=shortcut, pool=pool)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, mean, inv, keep)
        ctx.act, ctx.frozen, ctx.summed = act, frozen, shortcut is not None
        return y, pool

    @staticmethod
    def backward(ctx, dy, dpool):
        *saved, keep = ctx.saved_tensors
        dy = None if dy is None else _laid_out(dy)
        dpool = None if dpool is None else dpool.contiguous()
        grads = _norm_act_backward(tuple(saved), ctx.act, ctx.frozen, dy=dy, dpool=dpool, keep=keep, dx=_like(saved[0]))
        return (*grads, None, None, None, None, None, dy if ctx.summed else None, None)


def _shape(x: Tensor, weight: Tensor, stride: int, same: bool) -> Shape:
    n, channels, height, width = x.shape
    size = weight.shape[-1]
    outs, pads = [output_side(side, stride) for side in (height, width)], [size // 2] * 2
    if same:
        pads = [same_padding(side, kernel_size=size, stride=stride)[0] for side in (height, width)]
    return Shape(n, height, width, channels, *outs, size, stride, *pads)


def _taps(weight: Tensor) -> Tensor:
    """Return a convolution kernel [c, 1, k, k] in the layout of the C code, [k * k, c]."""
    return weight.flatten(1).t().contiguous()


def _depthwise(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    size = (shape.n, shape.channels, shape.out_height, shape.out_width)
    y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    taps = _taps(weight)
    _call("effnet_depthwise", shape, _at(x), _at(taps), _at(y))
    return y


def _depthwise_input(x: Tensor, weight: Tensor, shape: Shape, dy: Tensor) -> Tensor:
    taps, dx = _taps(weight), _like(x)
    _call("effnet_depthwise_input", shape, _at(dy), _at(taps), _at(dx))
    return dx


def _depthwise_weight(x: Tensor, weight: Tensor, shape: Shape, dy: Tensor) -> Tensor:
    taps = x.new_empty((shape.size**2, shape.channels))
    _call("effnet_depthwise_weight", shape, _at(x), _at(dy), _at(taps))
    return taps.t().reshape(weight.shape)


class _Depthwise(Function):
    @staticmethod
    def forward(ctx, x, weight, stride, same):
        shape = _shape(x, weight, stride, same)
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        return _depthwise(x, weight, shape)

    @staticmethod
    def backward(ctx, dy):
        (x, weight), dy = ctx.saved_tensors, _laid_out(dy)
        return _depthwise_input(x, weight, ctx.shape, dy), _depthwise_weight(x, weight, ctx.shape, dy), None, None


class _NormActDepthwise(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inv, act, frozen, kernel, stride, same):
        shape = _shape(x, kernel, stride, same)
        ctx.save_for_backward(x, weight, bias, mean, inv, kernel)
        ctx.act, ctx.frozen, ctx.shape = act, frozen, shape
        return _depthwise(_apply((x, weight, bias, mean, inv), act), kernel, shape)

    @staticmethod
    def backward(ctx, dy):
        *saved, kernel = ctx.saved_tensors
        dy, x = _laid_out(dy), saved[0]
        dx, activated = _depthwise_input(x, kernel, ctx.shape, dy), _like(x)
        grads = _norm_act_backward(tuple(saved), ctx.act, ctx.frozen, dy=dx, dx=dx, activated=activated)
        return *grads, None, None, None, None, _depthwise_weight(activated, kernel, ctx.shape, dy), None, None


class _ScaleProject(Function):
    @staticmethod
    def forward(ctx, x, gate, weight):
        ctx.save_for_backward(x, gate, weight)
        scaled = _like(x)
        _call("effnet_scale", _at(x), _at(gate), _at(scaled), *_sizes(x))
        return nn.functional.conv2d(scaled, weight)

    @staticmethod
    def backward(ctx, dy):
        x, gate, weight = ctx.saved_tensors
        dy = _laid_out(dy)
        dx, scaled, dgate = _gradient(dy, x, weight, which=0), _like(x), torch.empty_like(gate)
        dx = _laid_out(dx)
        _call("effnet_scale_backward", _at(x), _at(gate), _at(dx), _at(dgate), _at(scaled), *_sizes(x))
        return dx, dgate, _gradient(dy, scaled, weight, which=1)


def _gradient(dy: Tensor, x: Tensor, weight: Tensor, *, which: int) -> Tensor:
    """Return a gradient of a 1 x 1 convolution: with respect to the map for `which` 0, to the weight for 1."""
    mask = [which == 0, which == 1, False]
    return torch.ops.aten.convolution_backward(
        dy, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
    )[which]  # fmt: skip
