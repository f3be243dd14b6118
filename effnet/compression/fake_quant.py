"""Fake quantization: a network that computes like its int8 export, with gradients through the rounding."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.layers import INPUT, named_layers, readers
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError
from effnet.nn.dense import DenseNetwork
from effnet.nn.layers import SameConv2d
from effnet.nn.network import Network
from effnet.runtimes.onnxruntime.int8_graph import WEIGHT_LEVELS

_LEVELS = 255
# Runtimes fuse a clamp with rounding: the value before such a layer is never stored separately.
_CLAMPS = ("relu", "relu6")
# Decay of a range's moving average per batch, and the batches after which the range is frozen.
_RANGE_KEPT, _BATCHES_SEEN = 0.95, 200
_TINY = 1e-8


class FakeQuantize(nn.Module):
    """Fake-quantize a feature map to int8 over one range with a zero point; gradients pass within the range.

    In training the range follows a moving average of the batches' least and largest values for the first 200 batches;
    then it is frozen, so that the weights adapt to the final grid. Source: Jacob et al. 2018, section 3.1 (ranges by
    moving average, frozen at the start of training there, late here).
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.enabled, self.watching = True, False

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any shape to the same shape."""
        if self.watching:
            self._widen(x)
            return x
        if not self.enabled:
            return x
        if self.training and int(self.seen) < _BATCHES_SEEN:
            self._follow(x)
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=0.0)  # 0 pads feature maps and must be exact
        scale = ((high - low) / _LEVELS).clamp(min=_TINY)
        zero = (-low / scale).round().clamp(0, _LEVELS).to(torch.int32)
        # In float32: under automatic mixed precision feature maps have fewer bits, with coarser steps than these.
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, _LEVELS).to(x.dtype)

    def on_output(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Fake-quantize a module's output, as its forward hook; a method, so that a copied network uses its own."""
        return self(output)

    def on_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Fake-quantize a module's input, as its forward pre-hook."""
        return (self(args[0]), *args[1:])

    @torch.no_grad()
    def _widen(self, x: Tensor) -> None:
        low, high = x.aminmax()
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        low, high = x.aminmax()
        self.low.lerp_(low.to(self.low), 1 - _RANGE_KEPT)
        self.high.lerp_(high.to(self.high), 1 - _RANGE_KEPT)
        self.seen += 1


def rounded_weight(weight: Tensor, *, levels: int = WEIGHT_LEVELS) -> Tensor:
    """Return a weight [out, ...] fake-quantized to -levels..levels: symmetric, one scale per output channel.

    Folding BatchNorm multiplies channels by factors, which does not change this rounding: rounding before or after
    folding is the same.
    """
    scale = weight.detach().abs().flatten(1).amax(1).div(levels).clamp(min=_TINY)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -levels, levels)


class _RoundedConv:
    """Fake-quantize the weights of a convolution."""

    rounds, levels = True, WEIGHT_LEVELS

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 (torch's name)
        weight = rounded_weight(weight, levels=self.levels) if self.rounds else weight
        return super()._conv_forward(input, weight, bias)  # type: ignore[misc]


class RoundedConv2d(_RoundedConv, nn.Conv2d):
    """A convolution with fake-quantized int8 weights."""


class RoundedSameConv2d(_RoundedConv, SameConv2d):
    """A convolution with TensorFlow's padding and fake-quantized int8 weights."""


class RoundedLinear(nn.Linear):
    """A linear layer with fake-quantized int8 weights."""

    rounds, levels = True, WEIGHT_LEVELS

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [batch, in] to [batch, out]."""
        weight = rounded_weight(self.weight, levels=self.levels) if self.rounds else self.weight
        return functional.linear(input, weight, self.bias)


_ROUNDED: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: RoundedConv2d,
    SameConv2d: RoundedSameConv2d,
    nn.Linear: RoundedLinear,
}


def rounded_values(spec: ArchSpec, *, float_layers: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the layers (and the image) whose outputs an int8 export quantizes.

    These are all inputs of a convolution, sum, product, pool or separate activation; not the inputs of a clamp, the
    network's output, or the inputs and outputs of `float_layers`. ECA computes its gate's input in floats.
    """
    layers = dict(named_layers(spec))
    names = readers(layers.items())
    free = {name for float_layer in float_layers for name in layers[float_layer].inputs} | set(float_layers)
    free |= {name for name, layer in layers.items() if layer.op == "norm" and layer.inputs[0] in float_layers}
    found = [] if INPUT in free else [INPUT]
    for name, layer in layers.items():
        reading = [layers[reader] for reader in names[name]]
        if not reading or name in free or layer.op in ("max_pool", "channel_conv"):
            continue
        if all(reader.op == "norm" or reader.function in _CLAMPS for reader in reading):
            continue
        # As in a ResNet block, where one operation adds and activates.
        if layer.op == "add" and all(reader.op == "act" for reader in reading):
            continue
        found.append(name)
    return tuple(found)


def round_(
    network: Network | DenseNetwork, *, float_layers: Sequence[str] = (), weight_levels: int = WEIGHT_LEVELS
) -> None:
    """Make `network` compute like its int8 export, in place; call `calibrate_` next.

    `weight_levels` is the export's largest weight. Weights keep their names, the ranges are added under `ranges.`. The
    fused kernels do not support fake quantization and must stay off. Raises SpecError for a network whose layers share
    weights: an int8 export rounds those of each level by a range of its own.
    """
    if isinstance(network, DenseNetwork) and any(layer.weights for _, layer in network.graph):
        raise SpecError(
            f"fake quantization needs a network whose layers share no weights; those of {network.spec.name} do: make "
            "it with DenseNetwork(..., shared=False)"
        )
    kept = set(float_layers)
    for name, module in network.named_modules():
        if type(module) in _ROUNDED and name not in kept:
            module.__class__ = _ROUNDED[type(module)]
            module.levels = weight_levels  # type: ignore[assignment]
    ranges = nn.ModuleDict()
    for name in rounded_values(network.spec, float_layers=float_layers):
        quantizer = FakeQuantize()
        ranges[name.replace(".", "/")] = quantizer
        if name == INPUT:
            network.stem.get_submodule("conv").register_forward_pre_hook(quantizer.on_input)
        else:
            _module_of(network, name).register_forward_hook(quantizer.on_output)
    network.add_module("ranges", ranges)


def _module_of(network: nn.Module, name: str) -> nn.Module:
    """Return the module that outputs layer `name`; for a product its channel attention."""
    parent, _, last = name.rpartition(".")
    return network.get_submodule(parent if last == "scale" else name)


@torch.no_grad()
def calibrate_(network: nn.Module, images: Tensor, *, batch: int = 16) -> None:
    """Set every range to the least and largest value on normalised images [n, channels, R, R]."""
    quantizers = [module for module in network.modules() if isinstance(module, FakeQuantize)]
    rounding = [m for m in network.modules() if isinstance(m, _RoundedConv | RoundedLinear)]
    network.eval()
    for quantizer in quantizers:
        quantizer.watching = True
        quantizer.low.zero_()
        quantizer.high.zero_()
    for module in rounding:
        module.rounds = False
    for part in images.split(batch):
        network(part)
    for quantizer in quantizers:
        quantizer.watching = False
    for module in rounding:
        module.rounds = True
