"""A layer of a network, and a network's layers under construction."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from effnet.errors import SpecError

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec, BlockSpec

Op = Literal[
    "conv", "norm", "act", "max_pool", "global_pool", "mul", "add", "linear", "channel_conv",
    "resize", "concat", "fuse",
]  # fmt: skip
Width = Literal["mid", "out", "se"]
"""A width of a block: `mid_channels`, `out_channels` or `se_channels`."""

Size = tuple[int, int]
"""The height and the width of a feature map, in pixels."""

INPUT = "input"
CLASSES = "classes"
SHORTCUT_SUM = "add"
"""The name, within its block, of the sum of a block and its shortcut."""


FUSION_EPSILON = 1e-4
"""What is added to the sum of a fusion's weights, as in the original code."""


class Layer(NamedTuple):
    """One operation of the network; a tuple because planning creates hundreds of thousands of them.

    `inputs` are the names of the layers that it reads (`input` is the image). `function` is the name of an
    activation or of a gate. A "channel_conv" slides one kernel along the channels of a feature map of one pixel.

    `weights` is the name under which its parameters are stored if several layers share them, else they have its own.
    A "resize" gives a feature map the sides of the image over `reduction`, rounded up, by its nearest pixels. A "fuse"
    is the mean of feature maps with learnt weights: each that is negative counts as 0, and FUSION_EPSILON is added to
    their sum. A "max_pool" pads as the network's stem does, symmetrically, or by the function "same".
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
    weights: str = ""
    reduction: int = 0


Layers = list[tuple[str, Layer]]


class GraphOutput(NamedTuple):
    """A named output of a network with a decoder: the last layers that it is made of.

    In "rows" the feature maps of all layers are rows of `columns` numbers, [batch, rows, columns]: layer after layer,
    place after place, row by row, and within a place prior after prior. A "map" is that of one layer, [batch,
    columns, height, width].
    """

    name: str
    layers: tuple[str, ...]
    columns: int
    kind: Literal["rows", "map"]

    def shape(self, sizes: Mapping[str, Size], channels: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape for one image, from the sides and the channels of every layer."""
        if self.kind == "map":
            return (self.columns, *sizes[self.layers[0]])
        places = (math.prod(sizes[name]) * channels[name] // self.columns for name in self.layers)
        return (sum(places), self.columns)


class Body:
    """The layers of a network under construction; a block kind appends those of `block`.

    Methods append layers in execution order and return the name of the last one, which others may read. Convolutions
    name the width that they write; `widths` holds the name and the channels of every output's width. Of a network with
    a decoder, `taps` are the last layers of the backbone by level, 0 the stem's, and `outputs` are its named outputs;
    `ends` are the level and the last layer of each block.
    """

    __slots__ = ("_function", "_known", "_prefix", "block", "ends", "layers", "outputs", "spec", "taps", "widths")

    block: "BlockSpec"

    def __init__(self, spec: "ArchSpec") -> None:
        self.spec = spec
        self.layers: Layers = []
        self.widths: dict[str, tuple[str, int]] = {INPUT: (INPUT, spec.in_channels)}
        self.taps: dict[int, str] = {}
        self.ends: list[tuple[int, str]] = []
        self.outputs: tuple[GraphOutput, ...] = ()

    def enter(self, prefix: str, **known: tuple[str, int]) -> None:
        """Begin the part of the network whose layers' names start with `prefix`; `known` are the widths it writes."""
        self._prefix, self._known, self._function = f"{prefix}." if prefix else "", known, self.spec.activation

    def enter_block(self, prefix: str, block: "BlockSpec") -> None:
        """Begin a block of the network."""
        self.block = block
        mid, out, se = (f"{prefix}.mid", block.mid_channels), (f"{prefix}.out", block.out_channels), f"{prefix}.se"
        self.enter(prefix, mid=mid, out=out, se=(se, block.se_channels))
        self._function = block.activation or self.spec.activation

    def append(self, name: str, layer: Layer, width: tuple[str, int]) -> str:
        """Append any layer and the width that it writes; its name within the block must be new."""
        name = self._prefix + name
        self.layers.append((name, layer))
        self.widths[name] = width
        return name

    def unit(
        self, name: str, x: str, writes: Width, *,
        kernel_size: int = 1, stride: int = 1, depthwise: bool = False, act: bool = True,
    ) -> str:  # fmt: skip
        """Append a convolution of `x` that writes a width, a BatchNorm and, if `act`, the network's activation.

        With an empty name these are parts of the block itself. Raises SpecError if a depthwise convolution would
        change the number of channels.
        """
        prefix = f"{name}." if name else ""
        width = self._known[writes]
        fed, channels = self.widths[x][1], width[1]
        if depthwise and fed != channels:
            raise SpecError(
                f"{self._prefix}{prefix}conv is depthwise: it must write as many channels as it reads, {fed}; "
                f"{writes} has {channels}"
            )
        groups = channels if depthwise else 1
        x = self.append(prefix + "conv", Layer("conv", (x,), fed, channels, kernel_size, stride, groups), width)
        x = self.append(prefix + "norm", Layer("norm", (x,), channels, channels), width)
        return self.act(x, prefix + "act") if act else x

    def act(self, x: str, name: str = "act") -> str:
        """Append the activation of the block, or else of the network."""
        width = self.widths[x]
        return self.append(name, Layer("act", (x,), width[1], width[1], function=self._function), width)

    def add(self, name: str, x: str, y: str) -> str:
        """Append a sum. Raises SpecError if its terms are one map or have different widths: pruning would part them."""
        width = self.widths[x]
        if x == y:
            raise SpecError(f"{self._prefix}{name} must add two feature maps; got {x} twice")
        if self.widths[y] != width:
            raise SpecError(f"{self._prefix}{name} must add feature maps of one width; got {width}, {self.widths[y]}")
        return self.append(name, Layer("add", (x, y), width[1], width[1]), width)

    def shortcut(self, y: str, x: str) -> str:
        """Append the sum of a block's output `y` and its shortcut `x`, unless the block has none."""
        if self.block.residual == "none":
            return y
        width = self.widths[y]
        return self.append(SHORTCUT_SUM, Layer("add", (y, x), width[1], width[1]), width)

    def attention(self, x: str) -> str:
        """Append the block's channel attention, if it has one: a gate for each channel, from the pooled map."""
        if self.block.se_channels:
            return self._squeeze_excite(x)
        return self._efficient_attention(x) if self.block.eca_kernel else x

    def _squeeze_excite(self, x: str) -> str:
        """Hu et al. 2018: two layers see all channels."""
        width, inside = self.widths[x], self._known["se"]
        channels, squeezed = width[1], inside[1]
        y = self.append("se.pool", Layer("global_pool", (x,), channels, channels), width)
        y = self.append("se.reduce", Layer("conv", (y,), channels, squeezed, bias=True), inside)
        y = self.act(y, "se.act")
        y = self.append("se.expand", Layer("conv", (y,), squeezed, channels, bias=True), width)
        return self._scale("se", x, y)

    def _efficient_attention(self, x: str) -> str:
        """Wang et al. 2020, ECA-Net, section 3.2.3: one kernel, shared, sees each channel and its neighbours."""
        width, kernel = self.widths[x], self.block.eca_kernel
        channels = width[1]
        y = self.append("eca.pool", Layer("global_pool", (x,), channels, channels), width)
        y = self.append("eca.conv", Layer("channel_conv", (y,), channels, channels, kernel), width)
        return self._scale("eca", x, y)

    def _scale(self, unit: str, x: str, y: str) -> str:
        """Append the gate of `y` and its product with `x`."""
        width = self.widths[x]
        channels = width[1]
        if self.spec.se_gate != "none":
            y = self.append(f"{unit}.gate", Layer("act", (y,), channels, channels, function=self.spec.se_gate), width)
        return self.append(f"{unit}.scale", Layer("mul", (x, y), channels, channels), width)
