"""A network that computes as its int8 export will: weights and maps rounded to 8 bits, with gradients through."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.layers import INPUT, Layer, named_layers
from effnet.arch.spec import ArchSpec
from effnet.nn.layers import SameConv2d
from effnet.nn.network import Network

_LEVELS, _WEIGHT_LEVELS = 255, 127
# Runtimes clamp while they round: a value behind such a layer has no place of its own before the clamp.
_CLAMPS = ("relu", "relu6")
# So much of a range is kept each time that a batch is seen; after so many batches it stays as it is.
_RANGE_KEPT, _BATCHES_SEEN = 0.95, 200
_TINY = 1e-8


class FakeQuantize(nn.Module):
    """Rounds a map to 8 bits over one range with a zero point, and lets the gradient through within the range.

    In training the range follows a moving average of the batches' least and largest values, for the first 200
    batches; then it stays, so that the weights settle on the grid that they will have. Source: Jacob et al. 2018,
    section 3.1 (ranges by moving average, frozen where training begins in theirs, late here).
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
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=0.0)  # 0 pads maps and must be exact
        scale = ((high - low) / _LEVELS).clamp(min=_TINY)
        zero = (-low / scale).round().clamp(0, _LEVELS).to(torch.int32)
        # In 32 bits: under automatic mixed precision maps come in fewer, whose own steps are coarser than these.
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, _LEVELS).to(x.dtype)

    def on_output(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Stand behind a module as its forward hook; a method, so that a copied network calls its own copy."""
        return self(output)

    def on_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Stand before a module as its forward hook."""
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


def rounded_weight(weight: Tensor) -> Tensor:
    """Return a weight [out, ...] rounded to 8 bits, symmetrically, each output channel by its largest value.

    Folding a norm multiplies channels by factors, which such rounding does not notice: to round before folding or
    after it is the same.
    """
    scale = weight.detach().abs().flatten(1).amax(1).div(_WEIGHT_LEVELS).clamp(min=_TINY)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -_WEIGHT_LEVELS, _WEIGHT_LEVELS)


class _RoundedConv:
    """Gives a convolution rounded weights."""

    rounds = True

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 (torch's name)
        return super()._conv_forward(input, rounded_weight(weight) if self.rounds else weight, bias)  # type: ignore[misc]


class RoundedConv2d(_RoundedConv, nn.Conv2d):
    """A convolution whose weights are rounded to 8 bits as it computes."""


class RoundedSameConv2d(_RoundedConv, SameConv2d):
    """The same with TensorFlow's padding."""


class RoundedLinear(nn.Linear):
    """A linear layer whose weights are rounded to 8 bits as it computes."""

    rounds = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [batch, in] to [batch, out]."""
        return functional.linear(input, rounded_weight(self.weight) if self.rounds else self.weight, self.bias)


_ROUNDED: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: RoundedConv2d,
    SameConv2d: RoundedSameConv2d,
    nn.Linear: RoundedLinear,
}


def rounded_values(spec: ArchSpec, *, float_layers: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the layers, and of the image, whose outputs an int8 export rounds.

    These are all values that go into a convolution, a sum, a product, a pool or an activation of its own step;
    what goes into a clamp or comes out as an answer is not, nor what touches one of `float_layers`.
    """
    layers = dict(named_layers(spec))
    readers: dict[str, list[Layer]] = {}
    for layer in layers.values():
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
    free = {name for float_layer in float_layers for name in layers[float_layer].inputs} | set(float_layers)
    free |= {name for name, layer in layers.items() if layer.op == "norm" and layer.inputs[0] in float_layers}
    found = [] if INPUT in free else [INPUT]
    for name, layer in layers.items():
        reading = readers.get(name, [])
        if not reading or name in free or layer.op == "max_pool":
            continue
        if all(reader.op == "norm" or reader.function in _CLAMPS for reader in reading):
            continue
        if layer.op == "add" and reading[0].op == "act":  # within a ResNet's block, where one step does both
            continue
        found.append(name)
    return tuple(found)


def round_(network: Network, *, float_layers: Sequence[str] = ()) -> None:
    """Have `network` compute as its int8 export will, in place; `calibrate_` must follow.

    Its weights keep their names, the ranges come under `ranges.`. The fused kernels do not know of rounding and must
    stay off.
    """
    kept = set(float_layers)
    for name, module in network.named_modules():
        if type(module) in _ROUNDED and name not in kept:
            module.__class__ = _ROUNDED[type(module)]
    ranges = nn.ModuleDict()
    for name in rounded_values(network.spec, float_layers=float_layers):
        quantizer = FakeQuantize()
        ranges[name.replace(".", "/")] = quantizer
        if name == INPUT:
            network.stem.get_submodule("conv").register_forward_pre_hook(quantizer.on_input)
        else:
            _module_of(network, name).register_forward_hook(quantizer.on_output)
    network.add_module("ranges", ranges)


def _module_of(network: Network, name: str) -> nn.Module:
    """Return the module whose output is that of layer `name`: a product is its unit's, a sum its block's."""
    parent, _, last = name.rpartition(".")
    return network.get_submodule(parent if last in ("scale", "add") else name)


@torch.no_grad()
def calibrate_(network: Network, images: Tensor, *, batch: int = 16) -> None:
    """Set every range to the least and largest value that normalised images [n, channels, R, R] give."""
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
