"""One torch module for each kind of layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.layers import FUSION_EPSILON, Layer, Size, output_side, same_padding
from effnet.arch.spec import ArchSpec

FUNCTIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
}


class SameConv2d(nn.Conv2d):
    """A strided convolution with TensorFlow's "SAME" padding: an odd pixel is added at the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, in_channels, height, width] to [batch, out_channels, ceil(h / stride), ceil(w / stride)]."""
        pads: list[int] = []
        for size, kernel, stride in zip(
            reversed(input.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            pads += same_padding(size, kernel_size=kernel, stride=stride)
        return super().forward(functional.pad(input, pads))


class SamePool2d(nn.MaxPool2d):
    """A strided max pooling with TensorFlow's "SAME" padding, whose pixels never are the maximum."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, channels, height, width] to [batch, channels, ceil(h / stride), ceil(w / stride)]."""
        pads: list[int] = []
        for size in reversed(input.shape[-2:]):
            pads += same_padding(size, kernel_size=self.kernel_size, stride=self.stride)
        return super().forward(functional.pad(input, pads, value=-torch.inf))


class Resize(nn.Module):
    """A resize by the nearest pixels, to the size of the image over `reduction`, rounded up."""

    def __init__(self, reduction: int) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Map [batch, channels, ...] to [batch, channels, height, width], for images of `size`."""
        (height, width), (rows, columns) = x.shape[-2:], (output_side(side, self.reduction) for side in size)
        if rows % height == 0 and columns % width == 0:
            return functional.interpolate(x, size=(rows, columns), mode="nearest")
        # Interpolation computes the pixels with a rounded factor: of 50 to 198 one would be another.
        x = x[:, :, torch.arange(rows, device=x.device) * height // rows]
        return x[..., torch.arange(columns, device=x.device) * width // columns]


class Concat(nn.Module):
    """The channels of several feature maps, one after the other."""

    def forward(self, *maps: Tensor) -> Tensor:
        """Map tensors [batch, channels, height, width] to one."""
        return torch.cat(maps, dim=1)


class Fusion(nn.Module):
    """The mean of feature maps with learnt weights that are not negative, called fast normalized fusion.

    Source: Tan et al. 2020, EfficientDet, section 3.3.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))

    def forward(self, *maps: Tensor) -> Tensor:
        """Map tensors of one shape to one."""
        weights = functional.relu(self.weight)
        weights = weights / (weights.sum() + FUSION_EPSILON)
        return torch.stack([each * weight for each, weight in zip(maps, weights, strict=True)]).sum(0)


class GlobalPool(nn.Module):
    """The mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, height, width] to [batch, channels, 1, 1]."""
        return x.mean((2, 3), keepdim=True)


class Spread(nn.Module):
    """The mean of a feature map over its places, at every place of another map."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = GlobalPool(), Everywhere()

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map [batch, channels, ...] to [batch, channels, height, width], the size of `like`."""
        return self.spread(self.mean(x), like)


class Everywhere(nn.Module):
    """A feature map of one pixel, at every place of another map."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map [batch, channels, 1, 1] to [batch, channels, height, width], the size of `like`."""
        return x.expand(-1, -1, *like.shape[2:])


class Add(nn.Module):
    """The sum of two feature maps."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map two tensors [batch, channels, height, width] to one of the same shape."""
        return x + y


class ChannelConv(nn.Conv1d):
    """One kernel that slides along the channels, with zeros beyond them and without a bias: that of ECA."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, channels, 1, 1], or [batch, channels], to the same shape."""
        row = input.reshape(input.shape[0], 1, -1)  # one operation, which ExecuTorch's XNNPACK has
        return super().forward(row).reshape(input.shape)


class ChannelAttention(nn.Sequential):
    """Scales each channel by a gate computed from the pooled feature map.

    Squeeze-and-excitation has pool, reduce, act, expand, gate; efficient channel attention (ECA) pool, conv, gate.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """Map [batch, channels, height, width] to the same shape."""
        return input * super().forward(input)


class DropPath(nn.Module):
    """Stochastic depth: drops the residual branch of random images in training and scales up the others.

    Source: drop_connect in tensorflow/tpu efficientnet utils.py.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, ...] to the same shape."""
        keep = self.keep(x)
        return x if keep is None else x * keep.view(-1, *(1,) * (x.ndim - 1))

    def keep(self, x: Tensor) -> Tensor | None:
        """Return the factor of each image of a batch, [batch], or None if nothing is dropped."""
        if not self.training or self.rate == 0.0:
            return None
        share = 1.0 - self.rate
        return torch.empty(x.shape[0], dtype=x.dtype, device=x.device).bernoulli_(share) / share

    def extra_repr(self) -> str:
        """Show the rate in the printed module."""
        return f"rate={self.rate:.3f}"


def make_module(layer: Layer, spec: ArchSpec, *, norm_momentum: float) -> nn.Module:
    """Return the module of one layer; a product has none: ChannelAttention computes it."""
    match layer.op:
        case "conv":
            return _make_conv(layer, spec)
        case "norm":
            return nn.BatchNorm2d(layer.out_channels, eps=spec.norm_epsilon, momentum=norm_momentum)
        case "act":
            return FUNCTIONS[layer.function]()
        case "add":
            return Add()
        case "global_pool":
            return GlobalPool()
        case "resize":
            return Resize(layer.reduction)
        case "concat":
            return Concat()
        case "fuse":
            return Fusion(len(layer.inputs))
        case "max_pool" if layer.function == "same":
            return SamePool2d(layer.kernel_size, layer.stride)
        case "max_pool":
            return nn.MaxPool2d(layer.kernel_size, layer.stride, padding=layer.kernel_size // 2)
        case "linear":
            return nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias)
        case "channel_conv":
            return ChannelConv(layer.kernel_size)
    raise ValueError(f"no module for a layer of kind {layer.op!r}")


def _make_conv(layer: Layer, spec: ArchSpec) -> nn.Conv2d:
    # At stride 1 both rules pad an odd kernel alike; only strided kernels need dynamic padding.
    same = spec.padding == "same" and layer.stride > 1
    return (SameConv2d if same else nn.Conv2d)(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=0 if same else layer.kernel_size // 2,
        groups=layer.groups,
        bias=layer.bias,
    )


@torch.no_grad()
def initialise_(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the weights of every layer in place, as the original code does.

    Convolutions: N(0, sqrt(2 / fan_out)), with a fan-out of k * k for a depthwise kernel; the classifier:
    U(-1, 1) / sqrt(num_classes); biases 0. Source: tensorflow/tpu efficientnet_model.py. The kernels of ECA, which it
    lacks: U(-1, 1) / sqrt(k), torch's own, as in the authors' code.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            layer.weight.normal_(0.0, (2.0 / fan_out) ** 0.5, generator=generator)
        elif isinstance(layer, nn.Linear):
            bound = layer.out_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
        elif isinstance(layer, ChannelConv):
            bound = layer.kernel_size[0] ** -0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            layer.bias.zero_()
