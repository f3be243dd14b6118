"""The cost of a network, computed from its spec alone: exact counts, no torch, well under a millisecond."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from effnet.arch.layers import INPUT, Layer, Layers, Size, map_sizes, named_layers, parameter_keys
from effnet.arch.spec import ArchSpec, as_spec
from effnet.errors import SpecError

Precision = Literal["fp32", "fp16", "int8"]

# Operations that runtimes execute in place, in the buffer of their first input.
_IN_PLACE = frozenset({"norm", "act", "mul", "add", "fuse"})
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
    """One row of the per-layer table; `size` is the height and width of the output feature map, 1 x 1 after pooling.

    The parameters of layers that share them count at the first of these alone.
    """

    name: str
    op: str
    in_channels: int
    out_channels: int
    size: Size
    params: int
    macs: int


def layer_params(layer: Layer) -> int:
    """Return the number of trainable parameters of one layer."""
    if layer.op in _MULTIPLY:
        bias = layer.out_channels if layer.bias else 0
        return layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size**2 + bias
    if layer.op == "channel_conv":
        return layer.kernel_size
    if layer.op == "fuse":
        return len(layer.inputs)
    return 2 * layer.out_channels if layer.op == "norm" else 0


def layer_costs(spec: ArchSpec, *, resolution: int | None = None) -> list[LayerCost]:
    """Return the cost of every layer, in execution order, for an image of `resolution` pixels across."""
    layers = named_layers(spec)
    rows, counted = [], set()
    sizes = map_sizes(layers, spec.size_at(resolution))
    for name, layer in layers:
        height, width = sizes[name]
        params = layer_params(layer)
        macs = height * width * (params - layer.out_channels * layer.bias) if layer.op in _MULTIPLY else 0
        if layer.op == "channel_conv":  # its kernel is applied once per channel
            macs = params * layer.out_channels
        if layer.weights in counted:
            params = 0
        elif layer.weights:
            counted.add(layer.weights)
        rows.append(LayerCost(name, layer.op, layer.in_channels, layer.out_channels, (height, width), params, macs))
    return rows


def cost(spec: ArchSpec | str, *, resolution: int | None = None) -> Cost:
    """Return the analytic cost of `spec`, or of a network's name, for one image, by default at its resolution.

    Another resolution is the width of an image in the same proportions. Raises SpecError if it is not a positive
    integer, or if the name is unknown.

    >>> found = cost("b0")
    >>> found.params, found.macs
    (5288548, 385814752)
    """
    spec = as_spec(spec)
    size = spec.size_at(resolution)
    layers = named_layers(spec)
    params = macs = activations = norm_channels = output_channels = repeated = 0
    elements = []
    shared: set[str] = set()
    sizes = map_sizes(layers, size)
    for name, layer in layers:
        (height, width), out = sizes[name], layer.out_channels
        area = height * width
        elements.append(out * area)
        if layer.op in _MULTIPLY:
            weights = layer.in_channels // layer.groups * out * layer.kernel_size**2
            params += weights + out * layer.bias
            if layer.weights in shared:
                repeated += weights + out * layer.bias
            elif layer.weights:
                shared.add(layer.weights)
            macs += weights * area
            activations += out * area
            output_channels += out
        elif layer.op == "norm":
            params += 2 * out
            norm_channels += out
        elif layer.op == "channel_conv":
            params += layer.kernel_size
            macs += layer.kernel_size * out
            activations += out
        elif layer.op == "fuse":
            params += len(layer.inputs)
    return Cost(
        resolution=size[1],
        params=params - repeated,
        macs=macs,
        activations=activations,
        peak_activations=_peak(layers, elements, spec.in_channels * size[0] * size[1]),
        buffers=2 * norm_channels,
        # Folding turns a BatchNorm's scale and shift into one bias of the convolution before it.
        folded_params=_folded(layers) if spec.decoder else params - norm_channels,
        output_channels=output_channels,
    )


def _folded(layers: Layers) -> int:
    """Return the parameters of a network with shared weights after folding: each level has its own where it is normed.

    Every convolution has a bias then.
    """
    found = dict(layers)
    sizes = {key: layer_params(found[name]._replace(bias=True)) for name, key in parameter_keys(layers).items()}
    return sum(sizes.values()) + sum(layer_params(layer) for _, layer in layers if layer.op == "fuse")


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
