"""The cost of a network, computed from its spec alone: exact counts, no torch, well under a millisecond."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from effnet.arch.layers import INPUT, Layer, Layers, map_sides, named_layers
from effnet.arch.spec import ArchSpec, as_spec
from effnet.errors import SpecError

Precision = Literal["fp32", "fp16", "int8"]

# Operations that runtimes execute in place, in the buffer of their first input.
_IN_PLACE = frozenset({"norm", "act", "mul", "add"})
_MULTIPLY = frozenset({"conv", "linear"})

Count = Literal["macs", "params"]
"""A quantity of a network that can be counted and limited, by its name in Cost and LayerCost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The analytic cost of one image through a network.

    `macs` counts multiply-accumulates of convolutions and linear layers (1 MAC = 2 FLOPs). `activations`
    counts the elements that convolutions and linear layers write. `peak_activations` is the largest number of
    elements alive at once when layers run in order, element-wise ones in place. `buffers` counts the running
    statistics of BatchNorm (mean and variance), `folded_params` the parameters left after BatchNorm folding.
    """

    resolution: int
    params: int
    macs: int
    activations: int
    peak_activations: int
    buffers: int
    folded_params: int
    output_channels: int

    @property
    def peak_memory_bytes(self) -> int:
        """Peak activation memory in fp32, in bytes."""
        return 4 * self.peak_activations

    def weight_bytes(self, precision: Precision = "fp32") -> int:
        """Return the bytes of the deployed weights, with BatchNorm folded.

        int8 keeps int32 biases and one 32-bit scale per output channel.
        """
        if precision == "int8":
            return self.folded_params + 7 * self.output_channels
        sizes = {"fp32": 4, "fp16": 2}
        if precision not in sizes:
            raise SpecError(f"precision must be fp32, fp16 or int8; got {precision!r}")
        return sizes[precision] * self.folded_params


class LayerCost(NamedTuple):
    """One row of the per-layer table; `side` is that of the output feature map in pixels, 1 after pooling."""

    name: str
    op: str
    in_channels: int
    out_channels: int
    side: int
    params: int
    macs: int


def layer_params(layer: Layer) -> int:
    """Return the number of trainable parameters of one layer."""
    if layer.op in _MULTIPLY:
        bias = layer.out_channels if layer.bias else 0
        return layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size**2 + bias
    if layer.op == "channel_conv":
        return layer.kernel_size
    return 2 * layer.out_channels if layer.op == "norm" else 0


def layer_costs(spec: ArchSpec, *, resolution: int | None = None) -> list[LayerCost]:
    """Return the cost of every layer, in execution order, for a square image of `resolution` pixels."""
    layers = named_layers(spec)
    rows = []
    sides = map_sides(layers, _resolution(spec, resolution))
    for name, layer in layers:
        side = sides[name]
        params = layer_params(layer)
        macs = side * side * (params - layer.out_channels * layer.bias) if layer.op in _MULTIPLY else 0
        if layer.op == "channel_conv":  # its kernel is applied once per channel
            macs = params * layer.out_channels
        rows.append(LayerCost(name, layer.op, layer.in_channels, layer.out_channels, side, params, macs))
    return rows


def cost(spec: ArchSpec | str, *, resolution: int | None = None) -> Cost:
    """Return the analytic cost of `spec`, or of a network's name, for one square image, by default at its resolution.

    Raises SpecError if the resolution is not a positive integer, or if the name is unknown.

    >>> found = cost("b0")
    >>> found.params, found.macs
    (5288548, 385814752)
    """
    spec = as_spec(spec)
    resolution = _resolution(spec, resolution)
    layers = named_layers(spec)
    params = macs = activations = norm_channels = output_channels = 0
    elements = []
    sides = map_sides(layers, resolution)
    for name, layer in layers:
        side, out = sides[name], layer.out_channels
        elements.append(out * side * side)
        if layer.op in _MULTIPLY:
            weights = layer.in_channels // layer.groups * out * layer.kernel_size**2
            params += weights + out * layer.bias
            macs += weights * side * side
            activations += out * side * side
            output_channels += out
        elif layer.op == "norm":
            params += 2 * out
            norm_channels += out
        elif layer.op == "channel_conv":
            params += layer.kernel_size
            macs += layer.kernel_size * out
            activations += out
    return Cost(
        resolution=resolution,
        params=params,
        macs=macs,
        activations=activations,
        peak_activations=_peak(layers, elements, spec.in_channels * resolution**2),
        buffers=2 * norm_channels,
        # Folding turns a BatchNorm's scale and shift into one bias of the convolution before it.
        folded_params=params - norm_channels,
        output_channels=output_channels,
    )


def _resolution(spec: ArchSpec, resolution: int | None) -> int:
    resolution = spec.resolution if resolution is None else resolution
    if type(resolution) is not int or resolution < 1:
        raise SpecError(f"resolution must be a positive integer, in pixels; got {resolution!r}")
    return resolution


def _peak(layers: Layers, elements: list[int], input_elements: int) -> int:
    """Walk the layers in order and return the largest number of elements alive while one of them runs."""
    last_reader = {source: index for index, (_, layer) in enumerate(layers) for source in layer.inputs}
    buffers = {INPUT: input_elements}
    alive = peak = input_elements
    for index, (name, layer) in enumerate(layers):
        inputs = layer.inputs
        if layer.op in _IN_PLACE and last_reader[inputs[0]] == index:
            buffers[name] = buffers.pop(inputs[0])
            inputs = inputs[1:]
        else:
            buffers[name] = elements[index]
            alive += elements[index]
            if alive > peak:
                peak = alive
        for source in inputs:
            if last_reader[source] == index:
                alive -= buffers.pop(source)
    return peak
