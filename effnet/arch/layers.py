"""The layers of every block kind, defined once: a spec as a list of named layers.

The names are the module names, the state-dict keys, the rows of `cost` and of the latency table. The list is
a data-flow graph in execution order: each layer names the layers whose outputs it reads.
"""

from typing import Literal, NamedTuple

from effnet.arch.spec import ArchSpec, BlockSpec

Op = Literal["conv", "norm", "act", "max_pool", "global_pool", "mul", "add", "linear"]

INPUT = "input"


class Layer(NamedTuple):
    """One operation of the network; a tuple because planning creates hundreds of thousands of them.

    `inputs` are the names of the layers that it reads (`input` is the image). `function` is the name of an
    activation or of a gate.
    """

    op: Op
    inputs: tuple[str, ...]
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    function: str = ""


Layers = list[tuple[str, Layer]]


def named_layers(spec: ArchSpec) -> Layers:
    """Return every layer of `spec` with its name, in execution order."""
    layers: Layers = []
    stem = spec.stem
    x = _unit(
        layers, "stem", INPUT, spec.in_channels, stem.channels,
        kernel_size=stem.kernel_size, stride=stem.stride, function=spec.activation,
    )  # fmt: skip
    if stem.max_pool:
        x = _append(layers, "stem.pool", Layer("max_pool", (x,), stem.channels, stem.channels, 3, 2))
    for i, blocks in enumerate(spec.stages):
        for j, block in enumerate(blocks):
            x = _BLOCKS[block.kind](layers, f"stages.{i}.{j}", x, block, spec)
    width = spec.stages[-1][-1].out_channels
    if spec.head_channels:
        x = _unit(layers, "head", x, width, spec.head_channels, function=spec.activation)
        width = spec.head_channels
    x = _append(layers, "pool", Layer("global_pool", (x,), width, width))
    if spec.num_classes:
        _append(layers, "classifier", Layer("linear", (x,), width, spec.num_classes, bias=True))
    return layers


def _append(layers: Layers, name: str, layer: Layer) -> str:
    layers.append((name, layer))
    return name


def _unit(
    layers: Layers, prefix: str, x: str, in_channels: int, out_channels: int, *,
    kernel_size: int = 1, stride: int = 1, groups: int = 1, function: str = "",
) -> str:  # fmt: skip
    """Append a convolution, a BatchNorm and, if `function` names one, an activation."""
    conv = Layer("conv", (x,), in_channels, out_channels, kernel_size, stride, groups)
    x = _append(layers, f"{prefix}.conv", conv)
    x = _append(layers, f"{prefix}.norm", Layer("norm", (x,), out_channels, out_channels))
    if function:
        layer = Layer("act", (x,), out_channels, out_channels, function=function)
        x = _append(layers, f"{prefix}.act", layer)
    return x


def _squeeze_excite(layers: Layers, prefix: str, x: str, width: int, squeezed: int, spec: ArchSpec) -> str:
    y = _append(layers, f"{prefix}.pool", Layer("global_pool", (x,), width, width))
    y = _append(layers, f"{prefix}.reduce", Layer("conv", (y,), width, squeezed, bias=True))
    y = _append(layers, f"{prefix}.act", Layer("act", (y,), squeezed, squeezed, function=spec.activation))
    y = _append(layers, f"{prefix}.expand", Layer("conv", (y,), squeezed, width, bias=True))
    if spec.se_gate != "none":
        y = _append(layers, f"{prefix}.gate", Layer("act", (y,), width, width, function=spec.se_gate))
    return _append(layers, f"{prefix}.scale", Layer("mul", (x, y), width, width))


def _sum(layers: Layers, prefix: str, x: str, shortcut: str, block: BlockSpec) -> str:
    if block.residual == "none":
        return x
    width = block.out_channels
    return _append(layers, f"{prefix}.add", Layer("add", (x, shortcut), width, width))


def _mbconv(layers: Layers, prefix: str, x: str, block: BlockSpec, spec: ArchSpec) -> str:
    shortcut, mid = x, block.mid_channels
    if block.kind == "mbconv":
        x = _unit(layers, f"{prefix}.expand", x, block.in_channels, mid, function=spec.activation)
    x = _unit(
        layers, f"{prefix}.depthwise", x, mid, mid,
        kernel_size=block.kernel_size, stride=block.stride, groups=mid, function=spec.activation,
    )  # fmt: skip
    if block.se_channels:
        x = _squeeze_excite(layers, f"{prefix}.se", x, mid, block.se_channels, spec)
    x = _unit(layers, f"{prefix}.project", x, mid, block.out_channels)
    return _sum(layers, prefix, x, shortcut, block)


def _fused_mbconv(layers: Layers, prefix: str, x: str, block: BlockSpec, spec: ArchSpec) -> str:
    shortcut, mid = x, block.mid_channels
    x = _unit(
        layers, f"{prefix}.expand", x, block.in_channels, mid,
        kernel_size=block.kernel_size, stride=block.stride, function=spec.activation,
    )  # fmt: skip
    if block.se_channels:
        x = _squeeze_excite(layers, f"{prefix}.se", x, mid, block.se_channels, spec)
    x = _unit(layers, f"{prefix}.project", x, mid, block.out_channels)
    return _sum(layers, prefix, x, shortcut, block)


def _conv(layers: Layers, prefix: str, x: str, block: BlockSpec, spec: ArchSpec) -> str:
    y = _unit(
        layers, prefix, x, block.in_channels, block.out_channels,
        kernel_size=block.kernel_size, stride=block.stride, function=spec.activation,
    )  # fmt: skip
    return _sum(layers, prefix, y, x, block)


def _resnet(layers: Layers, prefix: str, x: str, block: BlockSpec, spec: ArchSpec) -> str:
    """Append a ResNet block: He et al. 2015, figure 5, stride in the k x k convolution as in torchvision and timm."""
    k, stride, mid, act = block.kernel_size, block.stride, block.mid_channels, spec.activation
    if block.kind == "basic":
        y = _unit(layers, f"{prefix}.conv1", x, block.in_channels, mid, kernel_size=k, stride=stride, function=act)
        y = _unit(layers, f"{prefix}.conv2", y, mid, block.out_channels, kernel_size=k)
    else:
        y = _unit(layers, f"{prefix}.conv1", x, block.in_channels, mid, function=act)
        y = _unit(layers, f"{prefix}.conv2", y, mid, mid, kernel_size=k, stride=stride, function=act)
        y = _unit(layers, f"{prefix}.conv3", y, mid, block.out_channels)
    if block.residual == "projection":
        x = _unit(layers, f"{prefix}.shortcut", x, block.in_channels, block.out_channels, stride=stride)
    y = _sum(layers, prefix, y, x, block)
    width = block.out_channels
    return _append(layers, f"{prefix}.act", Layer("act", (y,), width, width, function=act))


_BLOCKS = {
    "mbconv": _mbconv,
    "depthwise_separable": _mbconv,
    "fused_mbconv": _fused_mbconv,
    "conv": _conv,
    "basic": _resnet,
    "bottleneck": _resnet,
}


def output_side(side: int, stride: int) -> int:
    """Return the side of a feature map after an odd kernel with this stride, under either padding rule."""
    return -(-side // stride)
